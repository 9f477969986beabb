"""Renders RESULTS.md: the tables, and a list of the loads in which medserve is worse."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks.measure import Shape
from benchmarks.results import Figure, Results
from benchmarks.servers import PEER_SERVERS

INTRODUCTION = """Measured on {results.date} with `{results.command}`: {results.rounds} round(s) in which the servers
alternate, with {results.seconds:g} s of each load after a warm-up. Figures are medians over the rounds, followed by
minimum and maximum. The model is the articles' CNN (uint8 pixels as input, probabilities as output), the same file for
all servers. Each server runs alone, figures include all of its processes, and its probabilities agree with ONNX
Runtime's to 1e-4. The load generator is one process on the same cores, so throughput depends on both server and load
generator; the server's CPU time is measured separately and is the least affected by noise."""
QUICK = "**This was a quick run, which only shows that everything works; its figures are not reliable.**"
PROFILE = """Breakdown of that time (`python -m benchmarks.profile`, with totals from a separate run) for a plain
grpc.aio handler around the same model and for medserve. Outside of ONNX Runtime, it consists of many small parts.

![Profile](profile.png)"""
OPENVINO = """ResNet-18 with `openvino`, speedup over `cpu` (target: 3): not measured, on an AMD processor. The plugin
onnxruntime-ep-openvino 1.8.1 offers ONNX Runtime only devices of the vendor Intel (it compares the id with 0x8086)."""
UNARY = (Shape(1, 1), Shape(1, 16), Shape(1, 64), Shape(32, 4))
STREAM = (Shape(1, 16, stream=True), Shape(1, 64, stream=True))
FASTEST = ("medserve envoy", "medserve grpcio", "medserve")


def report(results: Results) -> str:
    """Returns the page as Markdown."""
    ours = next(name for name in FASTEST if name in results.outcomes)
    return "\n".join(
        [
            "# Serving benchmarks: medserve, bare ONNX Runtime and peers",
            "",
            INTRODUCTION.format(results=results),
            "",
            *([QUICK, ""] if results.rounds < 3 else []),
            *_machine(results),
            "",
            f"## Targets (`{ours}`)",
            "",
            "If a peer was measured with two settings, medserve is compared with the better one.",
            "",
            *_goals(results, ours),
            "",
            "",
            OPENVINO,
            "",
            f"## Where `{ours}` is worse",
            "",
            *_worse(results, ours),
            "",
            "## CPU time per image, µs",
            "",
            "![CPU time](serving_cpu.png)",
            "",
            *_ceiling(results),
            "",
            *_table(results, "server_cpu", (*UNARY, *STREAM), _count),
            "",
            PROFILE,
            "",
            "## Pictures per second",
            "",
            "![Throughput](serving_throughput.png)",
            "",
            *_table(results, "images_per_second", (*UNARY, *STREAM), _count),
            "",
            "## Request latency, ms",
            "",
            "Median:",
            "",
            *_table(results, "p50", (*UNARY, *STREAM), _decimal),
            "",
            "99th percentile:",
            "",
            *_table(results, "p99", (*UNARY, *STREAM), _decimal),
            "",
            f"## `{ours}` compared with the others",
            "",
            f"Ratio of the throughput of `{ours}` to that of the other server and, in parentheses, inverse ratio of",
            f"the CPU times: above 1, `{ours}` is better.",
            "",
            *_ratios(results, ours),
            "",
            "## Startup time and memory",
            "",
            *_start(results),
            "",
            "## Settings",
            "",
            *_settings(results),
            "",
        ]
    )


def _machine(results: Results) -> Iterator[str]:
    yield "| | |"
    yield "| --- | --- |"
    for name, value in results.machine.items():
        yield f"| {name} | {value} |"


def _goals(results: Results, ours: str) -> Iterator[str]:
    """Compares the default transport with its targets, relative to the better setting of Triton."""
    yield "| figure | target | measured | |"
    yield "| --- | --- | --- | --- |"
    for in_flight in (16, 64):
        cpu = _over_the_better(results, "server_cpu", Shape(1, in_flight), ours, max)
        yield _goal(f"CPU time over Triton's, unary, {in_flight} in flight", "≤", 1.0, cpu)
    median = _over_the_better(results, "p50", Shape(1, 1), ours, max)
    yield _goal("median latency over Triton's, unary, 1 in flight", "≤", 1.1, median)
    for in_flight in (16, 64):
        stream = Shape(1, in_flight, stream=True)
        cpu = _over_the_better(results, "server_cpu", stream, ours, max)
        yield _goal(f"CPU time over Triton's, stream, {in_flight} in flight", "≤", 0.6, cpu)
        throughput = _over_the_better(results, "images_per_second", stream, ours, min)
        yield _goal(f"throughput over Triton's, stream, {in_flight} in flight", "≥", 1.4, throughput)
    for name, least in (("triton", 1.4), ("triton, 2 instances", 0.9)):
        throughput = _ratio(results, "images_per_second", Shape(32, 4), ours, name)
        yield _goal(f"throughput over that of {name}, 4 in flight, 32 images each", "≥", least, throughput)
    total = results.figure(ours, Shape(1, 64).label, "server_cpu")
    ratio = total.median / results.least_cpu(1) if total is not None else None
    yield _goal("CPU time over ONNX Runtime's alone, unary, 64 in flight", "≤", 2.2, ratio)
    encrypted = _ratio(results, "server_cpu", Shape(1, 64), f"{ours}, TLS", ours)
    yield _goal("CPU time with TLS over that without, unary, 64 in flight", "≤", 1.3, encrypted)
    rest = _ratio(results, "server_cpu", Shape(1, 64), f"{ours}, REST", "triton, REST")
    yield _goal("CPU time of JSON over HTTP over Triton's, 64 in flight", "≤", 1.0, rest)


def _over_the_better(
    results: Results, field: str, shape: Shape, ours: str, worst: Callable[[Iterable[float]], float]
) -> float | None:
    """Returns the ratio of our figure to Triton's, with the least favorable of Triton's settings."""
    variants = [name for name in results.outcomes if name.startswith("triton") and not name.endswith("REST")]
    ratios = [ratio for name in variants if (ratio := _ratio(results, field, shape, ours, name)) is not None]
    return worst(ratios) if ratios else None


def _goal(name: str, sign: str, bound: float, ratio: float | None) -> str:
    if ratio is None:
        return f"| {name} | {sign} {bound:g} | not measured | |"
    reached = ratio >= bound if sign == "≥" else ratio <= bound
    return f"| {name} | {sign} {bound:g} | {ratio:.2f} | {'reached' if reached else '**not reached**'} |"


def _worse(results: Results, ours: str) -> list[str]:
    """Lists every load and figure in which a peer is better."""
    lines = []
    names = {
        "images_per_second": "more images per second",
        "server_cpu": "less CPU time per image",
        "p50": "a lower median latency",
        "p99": "a lower 99th percentile",
        "memory_mib": "less memory",
    }
    for peer in (name for name in results.outcomes if not name.startswith("medserve")):
        for field, words in names.items():
            for shape in (*UNARY, *STREAM):
                mine, theirs = (results.figure(name, shape.label, field) for name in (ours, peer))
                if not mine or not theirs:
                    continue
                more_is_better = field == "images_per_second"
                if theirs.median > mine.median if more_is_better else theirs.median < mine.median:
                    pair = f"{_short(theirs.median)} against {_short(mine.median)}"
                    lines.append(f"- {peer} has {words} with {shape.label}: {pair}.")
    return lines or ["In none of these loads and figures."]


def _ceiling(results: Results) -> Iterator[str]:
    yield "ONNX Runtime alone, in a process without a server:"
    yield ""
    yield "| batch | threads | CPU time | wall-clock time |"
    yield "| --- | --- | --- | --- |"
    for batch, threads in sorted({(cost.batch, cost.threads) for costs in results.ceiling for cost in costs}):
        here = [cost for costs in results.ceiling for cost in costs if (cost.batch, cost.threads) == (batch, threads)]
        cpu, wall = Figure.of([cost.cpu for cost in here]), Figure.of([cost.wall for cost in here])
        yield f"| {batch} | {threads} | {_count(cpu)} | {_count(wall)} |"


def _table(results: Results, field: str, shapes: Sequence[Shape], text: Callable[[Figure], str]) -> Iterator[str]:
    yield "| server | " + " | ".join(shape.label for shape in shapes) + " |"
    yield "| --- " * (len(shapes) + 1) + "|"
    for name in results.outcomes:
        figures = [results.figure(name, shape.label, field) for shape in shapes]
        yield f"| {name} | " + " | ".join(text(figure) if figure else "" for figure in figures) + " |"


def _ratios(results: Results, ours: str) -> Iterator[str]:
    shapes = (*UNARY, *STREAM)
    yield "| server | " + " | ".join(shape.label for shape in shapes) + " |"
    yield "| --- " * (len(shapes) + 1) + "|"
    for name in results.outcomes:
        if name == ours:
            continue
        cells = []
        for shape in shapes:
            throughput = _ratio(results, "images_per_second", shape, ours, name)
            cpu = _ratio(results, "server_cpu", shape, name, ours)
            cells.append(f"{throughput:.2f} ({cpu:.2f})" if throughput and cpu else "")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _ratio(results: Results, field: str, shape: Shape, over: str, under: str) -> float | None:
    first, second = (results.figure(name, shape.label, field) for name in (over, under))
    return first.median / second.median if first and second else None


def _start(results: Results) -> Iterator[str]:
    yield "Seconds from the start of the process to the first response (medserve loads two models, the others one), and"
    yield "memory after 64 in flight (proportional set size of all processes). The last column is the CPU time of the"
    yield "load generator at 64 in flight, on the same cores."
    yield ""
    yield "| server | first response, s | memory, MiB | load generator, µs per image |"
    yield "| --- | --- | --- | --- |"
    for name in results.outcomes:
        fields = ("ready_after", "memory_mib", "client_cpu")
        ready, memory, load = (results.figure(name, Shape(1, 64).label, field) for field in fields)
        if ready and memory and load:
            yield f"| {name} | {_decimal(ready)} | {_count(memory)} | {_count(load)} |"


def _settings(results: Results) -> Iterator[str]:
    yield "Each peer has its own environment (`benchmarks/peers/NAME/requirements.txt`), and the best settings found by"
    yield "a small search (`python -m benchmarks.tune`)."
    yield ""
    for peer in PEER_SERVERS:
        chosen = ", ".join(
            f"`{name.removeprefix('BENCH_')}={value}`"
            for name, value in peer.settings.items()
            if name.startswith(("BENCH_", "MLSERVER_MODEL_MAX", "MLSERVER_PARALLEL"))
        )
        yield f"- **{peer.name}** ({peer.protocol}): {chosen}. {peer.tried}"
    for name, reasons in results.reasons.items():
        yield f"- **{name}** has no or not all figures: {' '.join('; '.join(reasons).split())}"


def _count(figure: Figure) -> str:
    return _spread(figure, "{:,.0f}")


def _decimal(figure: Figure) -> str:
    return _spread(figure, "{:.2f}")


def _spread(figure: Figure, form: str) -> str:
    median, least, most = (form.format(value) for value in (figure.median, figure.least, figure.most))
    return median if least == most else f"{median} ({least}–{most})"  # noqa: RUF001 - a range


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
