"""The plots of a report, as self-contained SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from plinth.load.aggregation import ROUND_BLOCKS, Times
from plinth.load.percentiles import Latencies
from plinth.load.report import Report
from plinth.load.slo import CREATE

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7ee",
    "axes.edgecolor": "#8a94a6",
}
PALETTE = ("#2563eb", "#0f766e", "#b45309", "#9333ea", "#be123c", "#4d7c0f", "#0369a1", "#57534e", "#a16207")
CURVE = (50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99)
# Percentiles are drawn as far as there are answers beyond them.
BEYOND = 3
MISSED = "#b42318"


Draw = Callable[[Axes, Report, Mapping[str, Times]], None]


@dataclass(frozen=True)
class Plot:
    """A plot with a title; ``words`` explain it."""

    title: str
    words: str
    svg: str


def plots(report: Report) -> Iterator[Plot]:
    """Yield the plots for which the run has figures."""
    percentile = report.judged.percentile
    sent = {name: found for name, found in report.times.items() if name != CREATE}
    if any(len(found.response.blocks) > 1 for found in sent.values()):
        words = f"Each point is the p{percentile} of {report.decisive.block_s:.0f} s; crosses are seconds with errors."
        yield Plot("Latency over time", words, _drawn(_over_time, report, sent))
    yield Plot("Percentiles", "The dashed line is the target of searches.", _drawn(_curves, report, report.times))
    yield Plot("Recall by the size of the tenant", "The dashed line is the floor.", _drawn(_recall, report, sent))
    if report.server.samples:
        yield Plot(
            "The server's share of the machine", "Cores in use, and resident memory.", _drawn(_server, report, sent)
        )
    if len(report.steps) > 1:
        yield Plot("Latency by rate", "Where a line leaves the flat the server is full.", _drawn(_climb, report, sent))


def _drawn(draw: Draw, report: Report, found: Mapping[str, Times]) -> str:
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        draw(figure.subplots(), report, found)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]


def _over_time(axes: Axes, report: Report, found: Mapping[str, Times]) -> None:
    block_s = report.decisive.block_s
    for colour, (name, times) in zip(PALETTE, found.items(), strict=False):
        course = times.response.over_time(report.judged.percentile)
        axes.plot(
            _seconds(list(course), report), list(course.values()), color=colour, label=name, lw=1.4, marker=".", ms=3
        )
        failed = sorted(times.errors)
        if failed:
            axes.plot(_seconds(failed, report), [axes.get_ylim()[0]] * len(failed), "x", color=MISSED)
    axes.set(xlabel=f"seconds (blocks of {block_s:.0f} s)", ylabel="ms")
    _milliseconds(axes)
    _legend(axes)


def _seconds(blocks: Sequence[int], report: Report) -> list[float]:
    """Return the time of each block; rounds are drawn one after the other."""
    length = report.judged.duration_s
    return [block // ROUND_BLOCKS * length + block % ROUND_BLOCKS * report.decisive.block_s for block in blocks]


def _curves(axes: Axes, report: Report, found: Mapping[str, Times]) -> None:
    for colour, (name, times) in zip(PALETTE, found.items(), strict=False):
        shown = _supported(times.response)
        if shown:
            beyond = [100 / (100 - percentile) for percentile in shown]
            axes.plot(
                beyond, [times.response.at(percentile) for percentile in shown], color=colour, label=name, marker="."
            )
    axes.axhline(report.slo.operations["search"].at(report.judged.percentile), color=MISSED, ls="--", lw=1)
    ticks = [percentile for percentile in CURVE if percentile in (50, 90, 95, 99, 99.9, 99.99)]
    axes.set(xscale="log", xlabel="percentile", ylabel="ms")
    _milliseconds(axes)
    axes.set_xticks([100 / (100 - percentile) for percentile in ticks], [f"{percentile:g}" for percentile in ticks])
    axes.set_xticks([], minor=True)
    highest = max(percentile for times in found.values() for percentile in (50.0, *_supported(times.response)))
    axes.set_xlim(1.9, 1.2 * 100 / (100 - highest))
    _legend(axes)


def _supported(found: Latencies) -> list[float]:
    return [percentile for percentile in CURVE if found.total * (100 - percentile) / 100 >= BEYOND]


def _recall(axes: Axes, report: Report, _: Mapping[str, Times]) -> None:
    measured = report.measured.recall
    names = [*dict.fromkeys(band for recall in measured.values() for band in recall.bands), "all"]
    width = 0.8 / len(measured)
    for number, (when, recall) in enumerate(measured.items()):
        values = [recall.overall if name == "all" else recall.bands.get(name, 0.0) for name in names]
        places = [place + number * width for place in range(len(names))]
        bars = axes.bar(places, values, width * 0.92, color=PALETTE[number], label=when)
        axes.bar_label(bars, fmt="%.3f", fontsize=8)
    lowest = min(min((recall.overall, *recall.bands.values())) for recall in measured.values())
    floor = report.slo.recall.large_tenant
    axes.axhline(floor, color=MISSED, ls="--", lw=1)
    axes.set(ylabel="recall@10", ylim=(max(0.0, min(lowest, floor) - 0.05), 1.02))
    axes.set_xticks(
        [place + width * (len(measured) - 1) / 2 for place in range(len(names))],
        [f"tenants {n}" if n != "all" else n for n in names],
    )
    _legend(axes)


def _server(axes: Axes, report: Report, _: Mapping[str, Times]) -> None:
    samples = report.server.samples
    moments = [sample.at_s for sample in samples]
    axes.plot(moments, [sample.cpu_cores for sample in samples], color=PALETTE[0], label="cores")
    axes.set(xlabel="seconds", ylabel="cores", ylim=(0, None))
    memory = axes.twinx()
    memory.plot(moments, [sample.rss_mib for sample in samples], color=PALETTE[2], label="MiB")
    memory.set(ylabel="MiB", ylim=(0, None))
    memory.grid(visible=False)
    memory.spines["right"].set_visible(True)
    lines = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(
        lines, [str(line.get_label()) for line in lines], frameon=False, loc="upper left", bbox_to_anchor=(1.06, 1)
    )


def _climb(axes: Axes, report: Report, found: Mapping[str, Times]) -> None:
    rates = [step.rate_per_s for step in report.steps]
    for colour, name in zip(PALETTE, found, strict=False):
        values = [step.measured.operations[name].p95.value for step in report.steps if name in step.measured.operations]
        if len(values) == len(rates):
            axes.plot(rates, values, color=colour, label=name, marker="o", ms=4)
    axes.set(xlabel="requests a second", ylabel="p95 ms", xscale="log")
    _milliseconds(axes)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xticks([], minor=True)
    _legend(axes)


def _milliseconds(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_yticks([], minor=True)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
