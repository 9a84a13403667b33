"""What the operator does with the registry's answers, and without them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from wan22.errors import DeadlineExceeded, NotFound, Unavailable, Wan22Error
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version
from wan22_operator import models
from wan22_operator.models import Models

from .observing import VERSION

MODEL, OTHER = "wan2.2-t2v-a14b", "wan2.2-i2v-a14b"


class Registry(ModelClient):
    """Answers with a version, or with what is the matter."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.trouble: Wan22Error | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def resolve(self, reference: str) -> Version:
        self.asked[reference] += 1
        await self.answers.wait()
        if self.trouble is not None:
            raise self.trouble
        return Version(name=VERSION, variant="t2v-a14b")


async def test_pools_of_one_model_ask_for_it_once() -> None:
    registry = Registry()
    known = Models(registry, keep_seconds=60.0)
    found = await asyncio.gather(*(known.resolve(MODEL) for _ in range(1000)))
    assert {resolved.name for resolved in found} == {VERSION}
    assert registry.asked[MODEL] == 1


async def test_a_registry_that_does_not_answer_holds_up_one_round_and_not_one_after_the_other() -> None:
    registry = Registry()
    registry.trouble = Unavailable("The registry is away.")
    known = Models(registry, keep_seconds=60.0)
    answers = await asyncio.gather(
        *(known.resolve(reference) for reference in (MODEL, OTHER) * 500), return_exceptions=True
    )
    assert {str(answer) for answer in answers} == {"The registry is away."}
    assert registry.asked.total() <= 2  # both at once, the first time


async def test_a_registry_that_is_stopped_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ANSWER_SECONDS", 0.05)
    registry = Registry()
    registry.answers.clear()
    known = Models(registry, keep_seconds=60.0)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded, match=r"does not answer within 0\.05 s"):
            await known.resolve(MODEL)
    assert registry.asked[MODEL] == 1


async def test_a_tag_that_is_not_there_is_looked_up_each_time() -> None:
    registry = Registry()
    registry.trouble = NotFound("Model wan2.2-t2v-a14b has no tag next.")
    known = Models(registry, keep_seconds=60.0)
    for _ in range(2):
        with pytest.raises(NotFound):
            await known.resolve(MODEL)
    registry.trouble = None
    assert (await known.resolve(MODEL)).name == VERSION
