"""The upper bound of performance: the same ONNX Runtime session in a separate process, without a server.

`python -m benchmarks.ceiling 1 32` prints the cost of one image, by batch size and number of threads, as JSON.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import onnxruntime as ort

from benchmarks.model import make_model
from benchmarks.requests import image_batches
from benchmarks.servers import MODEL, ROOT

ort.disable_telemetry_events()


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one image in µs: wall-clock time, and CPU time of all threads."""

    batch: int
    threads: int
    wall: float
    cpu: float


def cost(batch: int, threads: int, seconds: float) -> Cost:
    """Measures the cost by running the session in a loop."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    inputs = itertools.cycle([{"image": images} for images in image_batches(batch)])
    warm = time.perf_counter() + seconds / 4
    while time.perf_counter() < warm:
        session.run(["probabilities"], next(inputs))
    runs, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < start + seconds:
        session.run(["probabilities"], next(inputs))
        runs += 1
    per_image = 1e6 / (runs * batch)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(batch, threads, wall * per_image, cpu * per_image)


def costs_in_a_process(seconds: float) -> list[Cost]:
    """Measures batches of 1 and 32 on one and two threads, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.ceiling", "1", "32", "--seconds", str(seconds)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return [Cost(**each) for each in json.loads(output)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("batches", nargs="+", type=int)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    make_model()
    found = [
        asdict(cost(batch, threads, arguments.seconds))
        for batch, threads in itertools.product(arguments.batches, arguments.threads)
    ]
    sys.stdout.write(json.dumps(found))
