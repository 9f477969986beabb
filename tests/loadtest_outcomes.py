"""What the processes of a load test import: functions that tell the status of an answer of a stream."""


def fine(_answer: bytes) -> str:
    return "OK"
