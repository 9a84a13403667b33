"""Who does not answer is left alone for a while."""

from __future__ import annotations

import pytest

from wan22.errors import NotFound, Unavailable
from wan22_operator import silence
from wan22_operator.silence import Silence

AWAY = Unavailable("It is away.")


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Called:
    """Answers with what it is given, in turn."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)

    async def __call__(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_who_does_not_answer_is_asked_again_after_a_while_and_others_are_asked_all_the_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, kept, call = Clock(), Silence(10.0), Called(AWAY, "other", "answer", "again")
    monkeypatch.setattr(silence, "time", clock)
    for _ in range(3):
        with pytest.raises(Unavailable, match="It is away"):
            await kept.ask("one", call)
    assert await kept.ask("other", call) == "other"
    clock.now += 10.0
    assert await kept.ask("one", call) == "answer"
    assert await kept.ask("one", call) == "again"


async def test_an_answer_that_refuses_is_no_silence() -> None:
    kept, call = Silence(10.0), Called(NotFound("There is no such model."), "answer")
    with pytest.raises(NotFound):
        await kept.ask("one", call)
    assert await kept.ask("one", call) == "answer"
