"""Measures medserve, bare ONNX Runtime and the peers, and writes RESULTS.md: `python -m benchmarks.serving`.

Servers alternate (A B C A B C), so that drift of the machine does not favor one of them. `--quick` only shows that
everything works; its figures are not reliable. `--render` rewrites the page from the figures of the last run.
"""

import argparse
import datetime as dt
import sys
import time

from benchmarks.ceiling import costs_in_a_process
from benchmarks.environments import missing
from benchmarks.measure import Shape
from benchmarks.model import make_model
from benchmarks.plots import plot
from benchmarks.report import report
from benchmarks.results import Results, machine
from benchmarks.servers import PEER_SERVERS, ROOT, Server, make_certificate, medserve_servers, variants_of
from benchmarks.trials import trial

SHAPES = (
    Shape(1, 1),
    Shape(1, 16),
    Shape(1, 64),
    Shape(32, 4),
    Shape(1, 16, stream=True),
    Shape(1, 64, stream=True),
)
FOLDER = ROOT / "benchmarks"
DATA = FOLDER / "serving.json"
PAUSE = 1.0


def main() -> None:
    """Runs the benchmark, or renders the results of the last run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run one round of one second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured duration of each load in each round")
    parser.add_argument("--warmup", type=float, default=1.5, help="seconds of warm-up with the same load")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="names or prefixes of the servers to measure")
    parser.add_argument("--render", action="store_true", help="render the last results without measuring")
    arguments = parser.parse_args()
    if arguments.render:
        results = Results.load(DATA)
    else:
        make_model()
        make_certificate()
        if arguments.quick:
            arguments.rounds, arguments.seconds, arguments.warmup = 1, 1.0, 0.5
        ours = medserve_servers()
        servers = [*ours, *variants_of(ours[-1]), *PEER_SERVERS]
        if arguments.only:
            servers = [each for each in servers if each.name.startswith(tuple(arguments.only))]
        results = measured(servers, arguments.rounds, arguments.seconds, arguments.warmup)
        results.save(DATA)
    plot(results, FOLDER)
    (FOLDER / "RESULTS.md").write_text(report(results))
    sys.stderr.write("wrote benchmarks/RESULTS.md\n")


def measured(servers: list[Server], rounds: int, seconds: float, warmup: float) -> Results:
    """Measures all installed servers, alternating over the rounds."""
    results = Results(
        command=" ".join(["python -m benchmarks.serving", *sys.argv[1:]]),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=machine(),
        rounds=rounds,
        seconds=seconds,
    )
    runnable = []
    for server in servers:
        if server.peer and (reason := missing(server.peer)):
            results.fail(server, reason)
        else:
            runnable.append(server)
    for turn in range(rounds):
        results.ceiling.append(costs_in_a_process(seconds))
        for server in runnable:
            sys.stderr.write(f"round {turn + 1} of {rounds}: {server.name}\n")
            try:
                for shape, outcome in trial(server, SHAPES, seconds, warmup):
                    results.add(server, shape, outcome)
            except RuntimeError as error:
                results.fail(server, str(error))
            time.sleep(PAUSE)
    return results


if __name__ == "__main__":
    main()
