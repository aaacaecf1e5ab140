"""The report of a run: a table and a page for people, JSON and JUnit XML for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isinf
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from plinth.load.aggregation import Result, Times, times
from plinth.load.percentiles import Estimate
from plinth.load.report_schema import (
    GeneratorRecord,
    OperationRecord,
    RecallRecord,
    ReportRecord,
    RoundRecord,
    SampleRecord,
    ServerRecord,
    StepRecord,
)
from plinth.load.server_metrics import ServerSide
from plinth.load.slo import CREATE, Profile, Slo
from plinth.load.verdict import Measured, Operation, Verdict, below_floor

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"pass": "green", "fail": "red", "void": "yellow"}


@dataclass(frozen=True)
class Step:
    """The rounds at one rate: the figures over those that count, and the verdict after each round."""

    rate_per_s: float
    measured: Measured
    verdicts: Sequence[Verdict]
    kept: Sequence[Sequence[Result]]
    block_s: float


@dataclass(frozen=True)
class Report:
    """A judged run."""

    profile: str
    judged: Profile
    slo: Slo
    steps: tuple[Step, ...]
    server: ServerSide
    created: Times | None
    engine: str
    url: str
    protocol: str
    data: str
    machine: str
    at: str
    compared: Verdict | None = None
    """With an earlier run; it counts where this one passes."""

    @property
    def decisive(self) -> Step:
        """Return the step at the rate that has to pass, or the last before it where one did not pass."""
        required = [step for step in self.steps if step.rate_per_s <= self.judged.rate_per_s]
        return required[-1]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the run."""
        own = self.decisive.verdicts[-1]
        return self.compared if self.compared and own.word == "pass" else own

    @property
    def measured(self) -> Measured:
        """Return the figures that the verdict rests on."""
        return self.decisive.measured

    @property
    def highest_rate_per_s(self) -> float | None:
        """Return the highest rate of a step test that passed; None where none did, or without steps."""
        passed = [step.rate_per_s for step in self.steps if step.verdicts[-1].word == "pass"]
        return max(passed) if passed and self.judged.steps else None

    @cached_property
    def times(self) -> dict[str, Times]:
        """Return the latencies by operation in the decisive step, for plots."""
        found = times(self.decisive.kept) | ({CREATE: self.created} if self.created else {})
        return {name: found[name] for name in self.slo.operations if name in found}

    def to_record(self) -> ReportRecord:
        """Return the report as its typed record."""
        return ReportRecord(
            verdict=self.verdict.word,
            reasons=list(self.verdict.reasons),
            profile=self.profile,
            protocol="grpc" if self.protocol == "grpc" else "rest",
            percentile=self.judged.percentile,
            confidence=self.judged.confidence,
            at=self.at,
            url=self.url,
            engine=self.engine,
            machine=self.machine,
            data=self.data,
            operations=self._operations(),
            recall={
                when: RecallRecord(
                    overall=found.overall, large_tenants=dict(found.large_tenants), bands=dict(found.bands)
                )
                for when, found in self.measured.recall.items()
            },
            generator=self._generator(),
            server=self._server(),
            steps=[
                StepRecord(
                    rate_per_s=step.rate_per_s,
                    verdict=step.verdicts[-1].word,
                    p95_ms={name: found.p95.value for name, found in step.measured.operations.items()},
                )
                for step in self.steps
            ],
            highest_rate_per_s=self.highest_rate_per_s,
            earlier_rounds=[
                RoundRecord(verdict=verdict.word, reasons=list(verdict.reasons))
                for verdict in self.decisive.verdicts[:-1]
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON; its schema is load/report.schema.json."""
        return self.to_record().model_dump(mode="json")

    def to_junit(self) -> str:
        """Return JUnit XML: a test case for each operation's percentile and each recall, and one for the run."""
        suite = ElementTree.Element("testsuite", name=f"plinth load {self.profile}", timestamp=self.at)
        percentile = self.judged.percentile
        for name, operation in self._in_order():
            target, found = self.slo.operations[name].at(percentile), operation.at(percentile)
            said = f"p{percentile} {found.value:.1f} ms ({found.low:.1f} to {found.high:.1f}), target {target:.0f} ms"
            case = _case(suite, f"{name} p{percentile} < {target:.0f} ms", found.value / 1000)
            if operation.errors or found.low > target:
                ElementTree.SubElement(case, "failure", message=_words(operation.first_error or said))
            elif found.high > target:
                ElementTree.SubElement(case, "skipped", message=f"open: {said}")
        for when, recall in self.measured.recall.items():
            case = _case(suite, f"recall@10 {when} >= {self.slo.recall.overall}", 0)
            missed = list(below_floor(when, recall, self.slo.recall))
            if missed:
                ElementTree.SubElement(case, "failure", message=_words("; ".join(missed)))
        case = _case(suite, "the run", 0)
        if self.verdict.word == "void":
            ElementTree.SubElement(case, "error", message=_words("; ".join(self.verdict.reasons)))
        elif self.verdict.word == "fail":
            ElementTree.SubElement(case, "failure", message=_words("; ".join(self.verdict.reasons)))
        for kind in ("failure", "error", "skipped"):
            suite.set(
                {"failure": "failures", "error": "errors", "skipped": "skipped"}[kind],
                str(len(suite.findall(f"*/{kind}"))),
            )
        suite.set("tests", str(len(suite)))
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)

    def table(self) -> Table:
        """Return the table of the operations against their targets."""
        # Plinth's image measures and prints no tables.
        from rich.table import Table

        from plinth.system.console import line

        percentile = self.judged.percentile
        table = Table(title=f"Load gate '{self.profile}' on {self.engine}", title_justify="left")
        judged = f"p{percentile} within"
        for column in (
            "operation",
            "answers",
            "errors",
            "rate/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            judged,
            "target",
            "recall",
        ):
            table.add_column(column, justify="left" if column == "operation" else "right")
        records = self._operations()
        for name, operation in self._in_order():
            target, found = self.slo.operations[name].at(percentile), operation.at(percentile)
            colour = "red" if found.low > target or operation.errors else "green" if found.high <= target else "yellow"
            recall = records[name].recall_at_10
            table.add_row(
                name,
                str(operation.count),
                str(operation.errors),
                f"{operation.rps:.1f}",
                f"{operation.p50_ms:.1f}",
                f"{operation.p95.value:.1f}",
                f"{operation.p99.value:.1f}",
                span(found),
                line((f"p{percentile} < {target:.0f}", colour)),
                f"{recall:.3f}" if recall is not None else "",
            )
        return table

    def _in_order(self) -> list[tuple[str, Operation]]:
        found = self.measured.operations
        return [(name, found[name]) for name in self.slo.operations if name in found]

    def _operations(self) -> dict[str, OperationRecord]:
        recall = list(self.measured.recall.values())[-1].overall
        return {
            name: OperationRecord(
                count=found.count,
                errors=found.errors,
                first_error=found.first_error,
                rps=found.rps,
                mean_ms=found.mean_ms,
                p50_ms=found.p50_ms,
                p95_ms=found.p95.value,
                p95_low_ms=found.p95.low,
                p95_high_ms=None if isinf(found.p95.high) else found.p95.high,
                p99_ms=found.p99.value,
                p99_low_ms=found.p99.low,
                p99_high_ms=None if isinf(found.p99.high) else found.p99.high,
                service_p95_ms=found.service_p95_ms,
                target_ms=self.slo.operations[name].at(self.judged.percentile),
                recall_at_10=recall if name == "search" else None,
            )
            for name, found in self._in_order()
        }

    def _generator(self) -> GeneratorRecord:
        return GeneratorRecord(**asdict(self.measured.generator), in_flight_expected=self.measured.in_flight_expected)

    def _server(self) -> ServerRecord:
        bracket = self.server.search_p95_ms
        return ServerRecord(
            searches=self.server.searches,
            search_p95_ms=None if bracket is None else (bracket[0], None if isinf(bracket[1]) else bracket[1]),
            samples=[SampleRecord(**asdict(sample)) for sample in self.server.samples],
            before=dict(self.server.before),
            after=dict(self.server.after),
        )


def span(found: Estimate) -> str:
    """Format an interval in milliseconds, for a cell."""
    return f"{found.low:.1f} - {'?' if isinf(found.high) else f'{found.high:.1f}'}"


def _words(text: str) -> str:
    """Return the text without characters that XML does not allow: a server's error may hold any byte."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _case(suite: ElementTree.Element, name: str, seconds: float) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname="plinth.load", name=name, time=f"{seconds:.6f}")
