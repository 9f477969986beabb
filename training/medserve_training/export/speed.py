"""Measures the speedup of one model over another on one core."""

import time

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROUNDS = 15
# Long enough for the clock's resolution, short enough that both models run under the same load of the machine.
_ROUND_SECONDS = 0.02


def speedup(before: bytes, after: bytes, rows: NDArray[np.uint8]) -> float:
    """Returns the ratio of median CPU times of two models on one core, measured alternately (A B A B ...).

    Args:
        before: The ONNX file in the numerator.
        after: The ONNX file in the denominator, with the same input.
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
    """Returns the mean CPU time of `number` runs; a single-threaded session runs in the caller's thread."""
    feed = {session.get_inputs()[0].name: rows}
    start = time.thread_time()
    for _ in range(number):
        session.run(None, feed)
    return (time.thread_time() - start) / number
