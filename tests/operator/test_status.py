from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from wan22_operator.record import Avoided, Load, Record, State, WorkerRecord
from wan22_operator.scaling.history import History
from wan22_operator.status import changed, status_of

from .observing import NOW, OTHER_VERSION, VERSION, demand, known, observed, planned, pod, view

CRDS = Path(__file__).parents[2] / "helm/wan22/files/crds"
times = st.integers(1_700_000_000, 1_900_000_000).map(float)
texts = st.text("abc-", min_size=1, max_size=9)
records = st.builds(
    Record,
    model=texts,
    model_version=st.just(OTHER_VERSION),
    earlier_version=st.sampled_from(["", VERSION]),
    variant=texts,
    image=texts,
    default_image=texts,
    revision=texts,
    next_ordinal=st.integers(0, 99),
    workers=st.lists(
        st.builds(
            WorkerRecord,
            name=texts,
            uid=texts,
            node=texts,
            revision=texts,
            state=st.sampled_from(State),
            reason=texts,
            since=times,
            bytes_left=st.none() | st.integers(0, 1 << 40),
            claim=texts,
            model_version=st.sampled_from(["", VERSION]),
        ),
        max_size=3,
    ).map(tuple),
    victims=st.lists(texts, max_size=2).map(tuple),
    desired=st.integers(0, 9),
    decision_time=times,
    decision_reason=texts,
    history=st.builds(History, st.just(((NOW - 100, 4), (NOW, 2))), st.none() | st.tuples(times, st.integers(0, 9))),
    loads=st.lists(st.builds(Load, times, st.just(12.5), texts, st.booleans()), max_size=2).map(tuple),
    avoided=st.lists(st.builds(Avoided, texts, times, st.integers(1, 9), texts), max_size=2).map(tuple),
)


@given(records)
def test_a_restart_forgets_nothing(record: Record) -> None:
    assert Record.from_status(record.to_status(), NOW) == record


@given(records)
def test_every_field_that_is_written_is_in_the_crd(record: Record) -> None:
    """Else the API server drops it, each round writes it again, and nothing comes to rest (OpenSandbox 1423)."""
    seen = observed(pods=[pod("t2v-0")], seen=view([known("t2v-0")], demand(queued=2)))
    status = {**status_of(seen, planned(seen), None), **record.to_status()}
    crd = yaml.safe_load((CRDS / "wanpools.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert unknown(status, schema) == []


def unknown(value: Any, schema: Any, path: str = "status") -> list[str]:
    if isinstance(value, dict):
        properties = schema["properties"]
        found = [f"{path}.{name}" for name in value if name not in properties]
        for name in value.keys() & properties.keys():
            found += unknown(value[name], properties[name], f"{path}.{name}")
        return found
    if isinstance(value, list):
        return [one for item in value for one in unknown(item, schema["items"], f"{path}[]")]
    assert "enum" not in schema or value in schema["enum"], (path, value)
    return []


def test_a_state_of_a_newer_operator_reads_as_unknown() -> None:
    assert WorkerRecord.from_status({"name": "w", "state": "Hibernating"}).state is State.UNKNOWN


def test_figures_that_stay_the_same_are_no_news() -> None:
    first = observed(pods=[pod("t2v-0")], seen=view([known("t2v-0")]))
    status = status_of(first, planned(first), None)
    later = observed(pods=[pod("t2v-0")], seen=view([known("t2v-0")]), status=status, now=NOW + 15)
    record = Record.from_status(status, NOW + 15)
    again = observed(pods=[pod("t2v-0")], record=record, seen=view([known("t2v-0")]), status=status, now=NOW + 15)
    assert not changed(status, status_of(again, planned(again), None))
    assert changed({}, status_of(later, planned(later), None))
    busier = observed(
        pods=[pod("t2v-0")], record=record, seen=view([known("t2v-0")], demand(queued=1)), status=status, now=NOW + 15
    )
    assert changed(status, status_of(busier, planned(busier), None))
