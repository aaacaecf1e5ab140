"""What a run leaves: JSON, a page, JUnit's XML, a comparison with an earlier run, a mark in Grafana."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from plinth.errors import UserError
from plinth.load import aggregation, baseline
from plinth.load import interleaved as against
from plinth.load.aggregation import Result
from plinth.load.gate import climb
from plinth.load.grafana_annotation import annotate
from plinth.load.html_report import page
from plinth.load.locust_runner import Schedule
from plinth.load.report import Report
from plinth.load.report_schema import ReportRecord
from plinth.load.server_metrics import Sample, ServerSide, bracket, difference, search_buckets
from plinth.load.slo import Profile, load_slo
from plinth.load.verdict import Measured, Recall, Verdict
from tests.answers import Answers, close, serve
from tests.conftest import ROOT

SLO = load_slo(ROOT / "load" / "slo.yaml")
RECALL = Recall(0.99, {"big": 0.98}, {"over 5 %": 0.98, "under 1 %": 1.0})


def result(schedule: Schedule, milliseconds: float) -> Result:
    """A worker's words: every operation of the mix 200 times, each about as slow as asked for."""
    chance, operations = np.random.default_rng(schedule.number), {}
    for name in schedule.mix:
        blocks = {}
        for block in range(10):
            histogram = HdrHistogram(1, 60_000_000, 3)
            for value in chance.normal(milliseconds, milliseconds / 20, 20):
                histogram.record_value(max(1, round(value * 1000)))
            blocks[str(block)] = histogram.encode().decode()
        operations[name] = {"response": blocks, "service": blocks, "errors": {}, "first_error": None}
    total = 200 * len(schedule.mix)
    elapsed = total / schedule.rate_per_s
    return {
        "planned": total,
        "sent": total,
        "elapsed_s": elapsed,
        "lag_p95_ms": 1.0,
        "host": "h",
        "cores": 2,
        "cpu_s": 0.0002 * total,
        "in_flight_mean": schedule.rate_per_s * milliseconds / 1000,
        "recall": {"big": [99, 100]},
        "operations": operations,
    }


def measure(kept: Any, profile: Profile) -> Measured:
    seconds = aggregation.elapsed(kept)
    operations = {
        name: aggregation.operation(t, seconds, profile.confidence) for name, t in aggregation.times(kept).items()
    }
    return Measured(operations, aggregation.generator(kept), {"before the run": RECALL, "during the run": RECALL})


def report(name: str = "smoke", latency: Callable[[float], float] = lambda _: 3.0) -> Report:
    """A run in which every answer takes as long as ``latency`` of the rate says, in milliseconds."""
    profile = SLO.profile(name)
    steps = climb(
        profile,
        SLO,
        lambda schedule: [result(schedule, latency(schedule.rate_per_s))],
        lambda kept: measure(kept, profile),
        lambda _: None,
    )
    server = ServerSide(
        100,
        (1.0, 5.0),
        tuple(Sample(float(at), 0.5, 200.0 + at) for at in range(0, 20, 2)),
        {"points_count": 8000, "indexed_vectors_count": 8000, "segments_count": 2},
        {"points_count": 8000, "indexed_vectors_count": 8000, "segments_count": 2},
    )
    return Report(
        profile=name,
        judged=profile,
        slo=SLO,
        steps=tuple(steps),
        server=server,
        created=None,
        engine="engine 1",
        url="http://x",
        protocol="rest",
        data="data",
        machine="m",
        at="2026-01-01",
    )


def test_the_json_is_what_its_schema_says_and_reads_back() -> None:
    made = report()
    text = json.dumps(made.to_json())
    assert ReportRecord.model_validate_json(text) == made.to_record()
    found = json.loads(text)
    assert found["verdict"] == "pass", found["reasons"]
    assert found["operations"]["search"]["p95_low_ms"] <= found["operations"]["search"]["p95_ms"]
    assert found["operations"]["search"]["recall_at_10"] == pytest.approx(0.99)
    assert found["generator"]["ceiling_per_s"] == pytest.approx(5000)


def test_the_published_schema_is_that_of_the_report() -> None:
    published = json.loads((ROOT / "load" / "report.schema.json").read_text())
    assert published == ReportRecord.model_json_schema()


def test_the_page_needs_nothing_beside_it_and_names_what_was_missed() -> None:
    html = page(report(latency=lambda _: 30.0))
    assert "http://www.w3.org" in html, "an SVG names its own namespace"
    assert "src=" not in html
    assert 'rel="stylesheet"' not in html
    assert html.count("<svg") >= 4
    assert "delete: p95 is" in html
    assert "Little&#39;s law" in html
    for title in ("Latency over time", "Percentiles", "Recall by the size of the tenant", "share of the machine"):
        assert title in html


def test_a_page_does_not_run_what_a_server_says() -> None:
    made = report()
    html = page(replace(made, engine="<script>alert(1)</script>"))
    assert "<script>" not in html


def test_junit_has_a_case_for_each_target_and_one_for_the_run() -> None:
    suite = ElementTree.fromstring(report(latency=lambda _: 30.0).to_junit())
    assert suite.tag == "testsuite"
    failed = {case.get("name", "").split()[0] for case in suite if case.find("failure") is not None}
    assert failed == {"upsert", "delete", "get", "the"}
    assert int(suite.get("failures") or 0) == len(failed)
    assert int(suite.get("tests") or 0) == len(suite) == len(SLO.profile("smoke").mix) + 3
    step = (made := report()).decisive
    measured = replace(step.measured, recall={"now": Recall(0.99, {}, {"under 1 %": 0.5})})
    fell = ElementTree.fromstring(replace(made, steps=(replace(step, measured=measured),)).to_junit())
    assert [case.get("name") for case in fell if case.find("failure") is not None] == ["recall@10 now >= 0.97"]
    passed = ElementTree.fromstring(report().to_junit())
    assert (passed.get("failures"), passed.get("errors"), passed.get("skipped")) == ("0", "0", "0")


def test_junit_can_be_read_whatever_a_server_says() -> None:
    made = report()
    step = made.decisive
    said = replace(step.measured.operations["get"], errors=1, first_error="500 \x00\x1b[31m\ufffe")
    measured = replace(step.measured, operations={**step.measured.operations, "get": said})
    told = replace(step, measured=measured, verdicts=[Verdict("fail", ("get: \x00",))])
    suite = ElementTree.fromstring(replace(made, steps=(told,)).to_junit())
    assert [str(found.get("message")).strip() for found in suite.iter("failure")] == ["500   [31m", "get:"]


def test_a_climb_ends_where_it_misses_and_passes_when_the_least_rate_holds() -> None:
    slo_rates = SLO.profile("stress").steps
    holds = report("stress", lambda rate: 3.0 if rate <= 200 else 300.0)
    assert [step.rate_per_s for step in holds.steps] == [rate for rate in slo_rates if rate <= 400]
    assert (holds.verdict.word, holds.highest_rate_per_s) == ("pass", 200)
    assert "Latency by rate" in page(holds)
    breaks = report("stress", lambda rate: 3.0 if rate <= 50 else 300.0)
    assert (breaks.verdict.word, breaks.highest_rate_per_s) == ("fail", 50)
    assert report("stress").highest_rate_per_s == slo_rates[-1]


def test_a_run_that_is_slower_than_its_baseline_is_told_by_ratio(tmp_path: Path) -> None:
    path = tmp_path / "then.json"
    path.write_text(json.dumps(report(latency=lambda _: 3.0).to_json()))
    then = baseline.read(path)
    same, slower = report(latency=lambda _: 3.1).to_record(), report(latency=lambda _: 4.5).to_record()
    baseline.require_alike(baseline.kind(same), then)
    assert baseline.verdict(same, then, 2.0) == Verdict("pass")
    told = baseline.verdict(slower, then, 2.0)
    assert (told.word, len(told.reasons)) == ("fail", len(then.operations))
    assert "search: p95 is at least 1." in told.reasons[0]
    # A busy machine is not blamed on the server.
    busy = baseline.verdict(slower, then, 0.5)
    assert (busy.word, busy.reasons[0]) == (
        "void",
        "the generator ran 1.0 ms late at the 95th percentile: this machine is too busy to compare on",
    )


def test_what_is_slower_than_before_is_so_in_every_report() -> None:
    worse = replace(report(), compared=Verdict("fail", ("search: slower",)))
    assert (worse.to_json()["verdict"], worse.to_json()["reasons"]) == ("fail", ["search: slower"])
    assert ElementTree.fromstring(worse.to_junit()).get("failures") == "1"
    assert "search: slower" in page(worse)
    # A run that missed its targets says so, whatever it is compared with.
    missed = report(latency=lambda _: 30.0)
    assert replace(missed, compared=Verdict("pass")).verdict == missed.verdict


@pytest.mark.parametrize(("times_as_slow", "word"), [(0.5, "pass"), (1.0, "pass"), (1.6, "fail"), (1.1, "void")])
def test_two_servers_take_turns_and_are_compared_by_ratio(times_as_slow: float, word: str) -> None:
    profile, order = SLO.profile("smoke"), []
    told: list[tuple[int, int]] = []

    def side(name: str, milliseconds: float) -> Callable[[Schedule], list[Result]]:
        def send(schedule: Schedule) -> list[Result]:
            order.append((name, schedule.number))
            # The machine is busier in every second pair; both feel it.
            return [result(schedule, milliseconds * (1 + schedule.number % 2))]

        return send

    ours, theirs = against.interleaved(
        side("ours", 3.0 * times_as_slow),
        side("theirs", 3.0),
        profile,
        lambda number, turn: told.append((number, turn)),
    )
    assert order[:4] == [("ours", 0), ("theirs", 0), ("theirs", 1), ("ours", 1)]
    assert told[:4] == [(1, 0), (1, 1), (2, 1), (2, 0)]
    found = against.ratios(ours, theirs, profile)
    assert {(ratio.operation, ratio.percentile) for ratio in found} == {(n, p) for n in profile.mix for p in (50, 95)}
    tail = [ratio for ratio in found if ratio.percentile == 95]
    assert all(ratio.value == pytest.approx(times_as_slow, rel=0.05) for ratio in tail)
    assert against.verdict(tail, None, None).word == word
    wrong, void = Verdict("fail", ("recall is low",)), Verdict("void", ("not indexed",))
    # A busy machine is not blamed on the server, and takes no pass away.
    assert against.verdict(tail, None, None, ("late",)).word == {"fail": "void"}.get(word, word)
    assert against.verdict(tail, wrong, None) == wrong
    assert against.verdict(tail, void, wrong) == void
    # What is wrong with the other side is no fault of this one's, and nothing to be measured by.
    assert against.verdict(tail, None, wrong) == Verdict("void", ("the other side: recall is low",))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    now = report().to_record()
    with pytest.raises(UserError, match="differs in its machine"):
        baseline.require_alike(baseline.kind(now), now.model_copy(update={"machine": "64 cores"}))
    with pytest.raises(UserError, match=r"differs in its rate_per_s \('50.0', this run '80'\)"):
        baseline.require_alike(replace(baseline.kind(now), rate_per_s=80), now)
    with pytest.raises(UserError, match="a void run"):
        baseline.require_alike(baseline.kind(now), now.model_copy(update={"verdict": "void"}))
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match="cannot be read"):
        baseline.read(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="no report of this version"):
        baseline.read(path)


PAGE = """# TYPE rest_responses_duration_seconds histogram
rest_responses_duration_seconds_bucket{{method="POST",endpoint="/collections/{{collection_name}}/points/query",status="200",le="0.001"}} {a}
rest_responses_duration_seconds_bucket{{method="POST",endpoint="/collections/{{collection_name}}/points/query",status="200",le="0.05"}} {b}
rest_responses_duration_seconds_bucket{{method="POST",endpoint="/collections/{{collection_name}}/points/query",status="200",le="+Inf"}} {c}
rest_responses_duration_seconds_bucket{{method="PUT",endpoint="/collections/{{collection_name}}/points",status="200",le="+Inf"}} 999
rest_responses_duration_seconds_sum{{method="POST",endpoint="/collections/{{collection_name}}/points/query",status="200"}} 1
rest_responses_duration_seconds_count{{method="POST",endpoint="/collections/{{collection_name}}/points/query",status="200"}} {c}
"""  # noqa: E501 - a page as a server writes it


def test_the_servers_own_percentile_is_of_the_searches_of_the_run() -> None:
    before, after = (search_buckets(PAGE.format(a=a, b=b, c=c)) for a, b, c in ((10, 10, 10), (20, 109, 110)))
    seen = difference(after, before)
    assert seen[float("inf")] == 100
    assert bracket(seen, 0.95) == (1.0, 50.0)
    assert bracket(seen, 0.05) == (0.0, 1.0)
    assert bracket({}, 0.95) is None
    # It was started again meanwhile, and counts from nothing.
    assert difference({0.05: 8.0, float("inf"): 9.0}, after) == {0.05: 8.0, float("inf"): 9.0}


@pytest.fixture
def grafana() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that takes annotations as Grafana does; its address and what it was sent."""
    taken: list[dict[str, Any]] = []

    class Api(Answers):
        def do_POST(self) -> None:
            body = json.loads(self.content())
            taken.append({"path": self.path, "authorization": self.headers["authorization"], **body})
            self.reply(200 if "admin" not in self.path else 404)

    server = serve(Api)
    yield f"http://127.0.0.1:{server.server_port}", taken
    close(server)


def test_a_run_is_marked_in_grafana_and_a_verdict_does_not_hang_on_it(
    grafana: tuple[str, list[dict[str, Any]]],
) -> None:
    url, taken = grafana
    assert annotate({"url": url, "user": "admin", "password": "p"}, report(), 20.0) is None
    (mark,) = taken
    assert mark["path"] == "/api/annotations"
    assert mark["timeEnd"] - mark["time"] == 20_000
    assert mark["tags"] == ["plinth", "load", "pass"]
    failed = annotate({"url": "http://127.0.0.1:9", "user": "admin", "password": "secret"}, report(), 20.0)
    assert failed is not None
    assert "secret" not in failed
