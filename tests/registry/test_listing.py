from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.channels import open_channel
from wan22.errors import InvalidRequest
from wan22.model_client import ModelClient
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_registry import listing
from wan22_registry.index import Entry

from . import model_folder

START = datetime(2026, 1, 1, tzinfo=UTC)


def entries(models: str) -> list[Entry]:
    """One entry a letter, oldest first."""
    return [
        Entry(model, f"sha256:{number:064x}", 1, START + timedelta(microseconds=number))
        for number, model in enumerate(models)
    ]


def names(models: list[model_pb2.Model]) -> list[tuple[str, list[str]]]:
    return [(model.name, [version.name for version in model.versions]) for model in models]


@given(models=st.text("abc", max_size=20), size=st.integers(1, 6), gone=st.sets(st.integers(0, 19)), new=st.text("abc"))
def test_pages_give_every_entry_once_whatever_comes_and_goes_between_them(
    models: str, size: int, gone: set[int], new: str
) -> None:
    all_entries = entries(models)
    kept = [entry for number, entry in enumerate(all_entries) if number not in gone]
    request, seen, more = model_pb2.ListModelsRequest(page_size=size), list[Entry](), True
    there = all_entries
    while more:
        page, more = listing.page(there, request)
        assert len(page) == size or not more
        seen += page
        if more:
            request.page_token = listing.token_after(page[-1])
        later = [Entry(e.model, "sha256:" + "f" * 64, 1, e.create_time + timedelta(days=1)) for e in entries(new)]
        there = kept + later
    assert len(set(seen)) == len(seen)
    assert {entry for entry in seen if entry in all_entries} >= set(kept)
    assert [entry.model for entry in seen] == sorted(entry.model for entry in seen)


async def test_a_listing_in_pages_is_the_listing_in_one(
    client: ModelClient, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, model in enumerate("abba"):
        folder = model_folder.write(tmp_path / f"{number}", b"%d" % number)
        await client.push_folder(folder, model=model, variant="t2v-a14b-tiny", tags=[f"v{number}"])
    whole = list(await client.list_models())
    assert [(model.name, [list(v.tags) for v in model.versions]) for model in whole] == [
        ("models/a", [["v3"], ["v0"]]),
        ("models/b", [["v2"], ["v1"]]),
    ]
    for size in (1, 2, 3, 4, 1000):
        assert [model async for model in client.iterate_models(size)] == whole
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 1)  # a version a page, however small
    async with open_channel(registry) as channel:
        first = await model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest())
    assert names(list(first.models)) == [("models/a", [whole[0].versions[0].name])]
    assert first.next_page_token
    assert list(await client.list_models()) == whole


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (model_pb2.ListModelsRequest(page_size=-1), "page_size is -1: use 1 to 1000"),
        (model_pb2.ListModelsRequest(page_size=1001), "page_size is 1001"),
        (model_pb2.ListModelsRequest(page_token="x"), "page_token is not one"),
        (model_pb2.ListModelsRequest(page_token="WzEsMl0="), "page_token is not one"),  # [1,2]
        (model_pb2.ListModelsRequest(page_token="MQ=="), "page_token is not one"),  # 1
    ],
)
def test_a_page_that_cannot_be_is_refused(request_: model_pb2.ListModelsRequest, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        listing.page([], request_)
