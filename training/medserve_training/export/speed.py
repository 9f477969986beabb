"""How much faster one model is than another, on one core."""

import time

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROUNDS = 15
# Long enough for the clock, short enough that both models see the same neighbours on the machine.
_ROUND_SECONDS = 0.02


def speedup(before: bytes, after: bytes, rows: NDArray[np.uint8]) -> float:
    """Median processor time of one model divided by that of another, both on one core, in turns: A B A B ...

    Args:
        before: An ONNX file.
        after: One with the same input.
        rows: The batch.
    """
    sessions = [_one_core(model) for model in (before, after)]
    repeats = [
        max(1, round(_ROUND_SECONDS / min(_seconds(session, rows, 1) for _ in range(5)))) for session in sessions
    ]
    times = [
        [_seconds(session, rows, number) for session, number in zip(sessions, repeats, strict=True)]
        for _ in range(ROUNDS)
    ]
    slow, fast = np.median(times, axis=0)
    return float(slow / fast)


def _one_core(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _seconds(session: onnxruntime.InferenceSession, rows: NDArray[np.uint8], number: int) -> float:
    """Of the processor, for one run, as the mean of some; a session of one thread runs in the caller's."""
    feed = {session.get_inputs()[0].name: rows}
    start = time.thread_time()
    for _ in range(number):
        session.run(None, feed)
    return (time.thread_time() - start) / number
