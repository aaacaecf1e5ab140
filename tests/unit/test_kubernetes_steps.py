"""A rolling change, pod by pod: one at a time, only while all is well, and to its end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from plinth.kubernetes.rolling_update_plan import Done, Lower, Pod, Wait, Workload, next_step

REVISIONS = st.sampled_from(["old", "new"])


def workload(pods: dict[int, Pod], partition: int | None = None) -> Workload:
    held = len(pods) if partition is None else partition
    return Workload("qdrant", len(pods), held, "new", observed=True, pods=pods)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    count = draw(st.integers(1, 6))
    return workload({n: Pod(draw(REVISIONS), draw(st.booleans()), "CrashLoopBackOff") for n in range(count)})


def controlled(seen: Workload, partition: int) -> Workload:
    """What the controller makes of a partition: the highest pod of an old revision from there on, anew and ready."""
    pods = {
        number: Pod("new", ready=True) if number >= partition and pod.revision != "new" else pod
        for number, pod in seen.pods.items()
    }
    return replace(seen, partition=partition, pods=pods)


@given(st.lists(REVISIONS, min_size=1, max_size=6))
def test_a_change_of_pods_that_are_well_ends_one_pod_after_the_other(revisions: list[str]) -> None:
    seen = workload({number: Pod(revision, ready=True) for number, revision in enumerate(revisions)})
    let_go = []
    while not isinstance(step := next_step(seen, None), Done):
        assert isinstance(step, Lower)
        changed = [n for n in seen.outdated if n >= step.partition]
        assert len(changed) == 1
        let_go += changed
        seen = controlled(seen, step.partition)
    assert let_go == sorted((n for n, revision in enumerate(revisions) if revision == "old"), reverse=True)
    assert seen.outdated == []


@given(workloads(), st.none() | st.just("1 shard transfer(s) are under way"))
def test_a_pod_that_serves_is_let_go_only_while_all_is_well(seen: Workload, lacks: str | None) -> None:
    step = next_step(seen, lacks)
    if isinstance(step, Lower):
        assert step.partition == seen.outdated[-1]
        if seen.pods[step.partition].ready:
            assert lacks is None
            assert all(pod.ready for pod in seen.pods.values())
    if isinstance(step, Done):
        assert lacks is None
        assert all(pod == replace(pod, revision="new", ready=True) for pod in seen.pods.values())


@given(workloads())
def test_while_a_pod_is_on_its_way_nothing_else_is_touched(seen: Workload) -> None:
    if seen.outdated:
        assert isinstance(next_step(replace(seen, partition=seen.outdated[-1]), None), Wait)
    assert isinstance(next_step(replace(seen, observed=False), None), Wait)
    assert isinstance(next_step(replace(seen, replicas=len(seen.pods) + 1), None), Wait)


def test_a_pod_that_the_last_change_broke_is_mended_by_the_next() -> None:
    pods = {0: Pod("old", True), 1: Pod("old", True), 2: Pod("broken", False, "ImagePullBackOff")}
    assert next_step(workload(pods), "qdrant-2 cannot be reached") == Lower(2)
    # And only once it is well do the others follow.
    pods[2] = Pod("new", False, "ContainerCreating")
    assert next_step(workload(pods), None) == Wait("pod qdrant-2 is not ready: ContainerCreating")
