"""Output of `medserve loadtest`: tables, JSON and a plot."""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import UsageError
from medserve_client.loadtest import LoadPlan, LoadResult
from medserve_client.loadtest.requests import Workload
from medserve_client.loadtest.server_metrics import ServerShare

_PERCENTILES = (50, 90, 99, 99.9)
# Minimum ratio of achieved to offered rate for a server to keep up with a rate.
_KEEPS_UP = 0.95
# CPU utilization above which the load generator itself may be the bottleneck.
_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """A load, its result, and the server's own metrics of it, if available."""

    plan: LoadPlan
    result: LoadResult
    server: ServerShare | None


def knee(runs: Sequence[Run], objective: float) -> Run | None:
    """Returns the run with the highest rate that the server kept up with, or None.

    A run counts only if its p99 latency is at most `objective`, in seconds.
    """
    good = [
        run
        for run in runs
        if run.result.throughput >= _KEEPS_UP * run.result.offered and run.result.percentile(99) <= objective
    ]
    return max(good, key=lambda run: run.plan.rate, default=None)


def show(runs: Sequence[Run], load: Workload, options: argparse.Namespace, best: Run | None) -> None:
    """Prints the results: all figures of a single run, or a row for each rate of a sweep."""
    title = f"{load.model}, version {load.version}: {protocol(options)}, {options.mode}, {options.batch} per request"
    # Not the table's own title, which would be wrapped to the table's width.
    terminal.output().print(terminal.cell(title if options.sweep else f"{title}, {_load(runs[0].plan)}", "bold"))
    if options.sweep:
        _show_sweep(runs, options.objective_ms, best)
    else:
        _show_run(runs[0], options.batch)
    for run in runs:
        busy = run.result.cpu_seconds / run.result.elapsed / run.plan.processes
        if busy > _BUSY:
            terminal.print_error(
                f"{_load(run.plan)}: the load generator used {busy:.0%} of its CPU time and may be the bottleneck; "
                "increase --processes"
            )


def protocol(options: argparse.Namespace) -> str:
    """Returns the protocol of the load: "grpc", "http-json" or "http-binary"."""
    return f"http-{options.http}" if options.http else "grpc"


def _load(plan: LoadPlan) -> str:
    return f"{plan.rate:.4g}/s" if plan.rate else f"{plan.concurrency} in flight"


def _show_run(run: Run, batch: int) -> None:
    result = run.result
    table = terminal.table("", "Figure", "Value")
    table.columns[1].justify = "right"
    rows = [
        ("requests/s", f"{result.throughput:.1f}"),
        ("items/s", f"{result.throughput * batch:.1f}"),
        *((f"latency {name}", _milliseconds(seconds)) for name, seconds in _latency(result).items()),
        *((f"server: {name}", text) for name, text in (_server_rows(run) if run.server else ())),
        ("requests", str(result.sent)),
        *((f"failed: {status}", str(number)) for status, number in result.errors.most_common()),
    ]
    for row in rows:
        table.add_row(*map(terminal.cell, row))
    terminal.output().print(table)


def _server_rows(run: Run) -> Iterator[tuple[str, str]]:
    """Yields the parts that the mean latency is the sum of, the mean batch size and the CPU time."""
    assert run.server is not None  # noqa: S101 - checked by the caller
    for name, seconds in _parts(run.result, run.server).items():
        yield name, _milliseconds(seconds)
    yield "mean batch", f"{run.server.batch_rows:.1f} items"
    if not math.isnan(run.server.cpu_seconds_per_request):
        yield "CPU per request", f"{run.server.cpu_seconds_per_request * 1e6:.0f} µs"
        yield "CPU per item", f"{run.server.cpu_seconds_per_row * 1e6:.0f} µs"


def _parts(result: LoadResult, server: ServerShare) -> dict[str, float]:
    inside = server.queue_seconds + server.compute_seconds
    return {
        "queue": server.queue_seconds,
        "compute": server.compute_seconds,
        "rest of handling": server.handling_seconds - inside,
        "outside of it": _latency(result)["mean"] - server.handling_seconds,
    }


def _show_sweep(runs: Sequence[Run], objective_ms: float, best: Run | None) -> None:
    table = terminal.table("", "Rate", "Offered", "Achieved", "p50", "p99", "Failed", "")
    for column in table.columns[:6]:
        column.justify = "right"
    for run in runs:
        result = run.result
        rates = (f"{run.plan.rate:.1f}/s", f"{result.offered:.1f}/s", f"{result.throughput:.1f}/s")
        latencies = (_milliseconds(result.percentile(50)), _milliseconds(result.percentile(99)))
        errors = ", ".join(f"{number} {status}" for status, number in result.errors.most_common())
        table.add_row(*map(terminal.cell, (*rates, *latencies, errors, "knee" if run is best else "")))
    terminal.output().print(table)
    condition = f"at least {_KEEPS_UP:.0%} of the offered rate achieved, and p99 at most {objective_ms:g} ms"
    found = f"Knee: {best.plan.rate:.1f} requests/s" if best else "Knee: none"
    terminal.output().print(f"{found} ({condition}).")


def _latency(result: LoadResult) -> dict[str, float]:
    """Returns latencies in seconds by name; NaN if no request succeeded."""
    some = result.latencies.size > 0
    return {
        "mean": float(result.latencies.mean()) if some else math.nan,
        **{f"p{percent:g}": result.percentile(percent) for percent in _PERCENTILES},
        "max": result.percentile(100),
    }


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.3f} ms"


def write_json(path: Path, runs: Sequence[Run], load: Workload, options: argparse.Namespace, best: Run | None) -> None:
    """Writes all results as JSON; unknown values are null.

    Raises:
        UsageError: the file cannot be written.
    """
    whole = {
        "target": options.server,
        "model": load.model,
        "version": load.version,
        "protocol": protocol(options),
        "tls": options.encryption is not None,
        "mode": options.mode,
        "batch": options.batch,
        "connections": runs[0].plan.connections,
        "processes": runs[0].plan.processes,
        "seed": options.seed,
        "runs": [document(run, options.batch) for run in runs],
        "knee": best.plan.rate if best else None,
    }
    try:
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def document(run: Run, batch: int) -> dict[str, object]:
    """Returns one run for JSON, with units in the keys.

    `latency_ms` has mean, p50, p90, p99, p99.9 and max; `errors` has the number of requests by gRPC status; `server`
    is null if its metrics were unavailable.
    """
    result, server = run.result, run.server
    return {
        "rate": run.plan.rate or None,
        "concurrency": run.plan.concurrency or None,
        "duration_s": result.elapsed,
        "warmup_s": run.plan.warmup,
        "timeout_s": run.plan.timeout,
        "sent": result.sent,
        "completed": result.completed,
        "offered_per_s": result.offered,
        "requests_per_s": result.throughput,
        "items_per_s": result.throughput * batch,
        "latency_ms": {name: _number(seconds * 1e3) for name, seconds in _latency(result).items()},
        "errors": dict(Counter(result.errors)),
        "lateness_ms": result.lateness * 1e3,
        "generator_cpu_s": result.cpu_seconds,
        "server": server
        and {
            **{f"{name.replace(' ', '_')}_ms": _number(part * 1e3) for name, part in _parts(result, server).items()},
            "mean_batch": _number(server.batch_rows),
            "cpu_us_per_request": _number(server.cpu_seconds_per_request * 1e6),
            "cpu_us_per_item": _number(server.cpu_seconds_per_row * 1e6),
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def require_matplotlib() -> None:
    """Checks that --plot is available before any load is generated.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs the extra loadtest: "
            "pip install '.[loadtest]' in a checkout of medserve, or 'FILE.whl[loadtest]' with its wheel"
        )


def write_plot(path: Path, runs: Sequence[Run], load: Workload, best: Run | None) -> None:
    """Plots latency against rate for a sweep, or against percentile for a single run.

    Raises:
        UsageError: the file cannot be written, or its suffix is not an image format.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    from matplotlib.ticker import LogFormatter  # noqa: PLC0415

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    if runs[0].plan.rate and len(runs) > 1:
        rates = [run.plan.rate for run in runs]
        for percent in (50, 99):
            axes.plot(rates, [run.result.percentile(percent) * 1e3 for run in runs], marker="o", label=f"p{percent}")
        if best:
            axes.axvline(best.plan.rate, color="gray", linestyle="--", label="knee")
        axes.set(xlabel="requests per second")
        axes.legend()
    else:
        # Starting at the median, on a logarithmic scale of the fraction of requests that exceed the percentile.
        percents = 100 - np.geomspace(50, 0.01, 200)
        axes.plot(100 / (100 - percents), [runs[0].result.percentile(percent) * 1e3 for percent in percents])
        axes.set(xlabel="percentile")
        ticks = (50, 90, 99, 99.9, 99.99)
        axes.set_xticks([100 / (100 - tick) for tick in ticks], [f"p{tick:g}" for tick in ticks], minor=False)
    for axis, plain in ((axes.yaxis, True), (axes.xaxis, len(runs) > 1)):
        if plain:
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set(ylabel="latency, ms", title=f"{load.model}, version {load.version}")
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"--plot {path}: {error}") from error
