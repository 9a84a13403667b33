"""Filters and page tokens of ListGenerations."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from wan22.client import Client
from wan22.errors import InvalidRequest
from wan22.v1.generation_pb2 import Generation, ListGenerationsRequest
from wan22.v1.webhook_pb2 import ListDeliveriesRequest
from wan22_gateway import page_token
from wan22_gateway.lifecycle import State
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import NewGeneration
from wan22_gateway.store.schema import generations as table
from wan22_testing.postgres import PostgresServer

from . import rows
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with

KEYS = ['"', "team", "a.b", "a b", "it's", "a[0]", "$", "ü", "\\", "a\\b", "%", "_", "'; --"]
VALUES = ["", "a", "A", "1", "true", "null", '"', "'", "\\", "%", "ü", "line\nbreak"]
LABELS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)
NEW = NewGeneration(
    id="",
    tenant="default",
    request_id="",
    request_digest="d",
    variant="t2v-a14b-tiny",
    pool=rows.POOL,
    model_version=rows.VERSION,
    parameters=b"",
    labels={},
    cut_texts={},
    siblings=[],
    predicted_seconds=1.0,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("listing")
    terms: dict[str, Any] = {}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        store = server.url(server.create(request.getfixturevalue("migrated")))
        terms = {"store": store, "scratch": folder / "gateway"}
    async with gateway_with(folder, ScriptedWorkerServicer(), **terms) as opened:
        yield opened


def fill(tx: Transaction, made: list[dict[str, str]]) -> list[str]:
    tx.execute(delete(table))
    ids = [str(uuid.uuid4()) for _ in made]
    generations.insert(tx, [replace(NEW, id=each, labels=labels) for each, labels in zip(ids, made, strict=True)])
    return ids


def listed(tx: Transaction, labels: dict[str, str], states: list[State], size: int) -> list[str]:
    """All pages of a listing."""
    found: list[str] = []
    before: int | None = None
    while True:
        page = generations.page(
            tx, "default", states=states, variant="t2v-a14b-tiny", wanted_labels=labels, before=before, limit=size
        )
        found += [row.id for row in page]
        if len(page) < size:
            return found
        before = page[-1].position


@settings(max_examples=40)
@given(made=st.lists(LABELS, max_size=8), wanted=LABELS, size=st.integers(1, 5))
async def test_a_listing_has_those_that_have_all_labels_newest_first(
    database: Database, made: list[dict[str, str]], wanted: dict[str, str], size: int
) -> None:
    ids = await database.write(fill, made)
    expected = [g for g, labels in zip(ids, made, strict=True) if wanted.items() <= labels.items()]
    assert await database.read(listed, wanted, [], size) == expected[::-1]
    assert await database.read(listed, wanted, [State.QUEUED, State.FAILED], size) == expected[::-1]
    assert await database.read(listed, wanted, [State.FAILED], size) == []
    assert await database.read(listed, {**wanted, "\0": ""}, [], size) == []


FILTERS = st.builds(
    ListGenerationsRequest,
    states=st.lists(st.sampled_from([Generation.QUEUED, Generation.FAILED]), max_size=2),
    variant=st.sampled_from(["", "t2v-a14b"]),
    labels=LABELS,
    page_size=st.integers(0, 9),
)


@given(st.sampled_from(["a", "b"]), st.sampled_from(["a", "b"]), FILTERS, FILTERS, st.integers(0, 2**40))
async def test_a_page_token_is_good_for_its_tenant_and_its_filters_alone(
    tenant: str, other: str, filters: ListGenerationsRequest, others: ListGenerationsRequest, position: int
) -> None:
    key = b"k" * 32
    token = page_token.encode(key, tenant, position, filters)
    filters.page_token = others.page_token = token
    assert page_token.decode(key, tenant, filters, int) == position
    same = (filters.states, filters.variant, filters.labels) == (others.states, others.variant, others.labels)
    if tenant == other and same:
        assert page_token.decode(key, other, others, int) == position
    else:
        with pytest.raises(InvalidRequest, match="page_token is not one that these filters gave"):
            page_token.decode(key, other, others, int)
    with pytest.raises(InvalidRequest):
        page_token.decode(b"l" * 32, tenant, filters, int)


def test_a_page_token_of_another_method_is_refused() -> None:
    """Without filters both requests are the same bytes."""
    key, mine, others = b"k" * 32, ListGenerationsRequest(), ListDeliveriesRequest()
    mine.page_token = page_token.encode(key, "a", "5 x", others)
    others.page_token = page_token.encode(key, "a", 5, mine)
    with pytest.raises(InvalidRequest):
        page_token.decode(key, "a", mine, int)
    with pytest.raises(InvalidRequest):
        page_token.decode(key, "a", others, str)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"labels": {"": "x"}}, "generation.labels"),
        ({"labels": {"k" * 64: "x"}}, "generation.labels"),
        ({"labels": {"k": "x" * 256}}, "generation.labels"),
        ({"labels": {"k\0": "x"}}, "generation.labels"),
        ({"labels": {"k": "\0"}}, "generation.labels"),
        ({"request_id": "r\0"}, "request_id"),
        ({"request_id": "r" * 129}, "request_id"),
        ({"request_id": "\0", "seed": -1}, "request_id"),
        ({"image": "media/" + 64 * "\0"}, "parameters.image"),
    ],
)
async def test_what_no_store_could_find_again_is_refused(client: Client, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.create(variant=T2V, prompt="p", **asked)
    assert {violation.field for violation in caught.value.violations} == {field}
