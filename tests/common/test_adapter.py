from __future__ import annotations

import json
from typing import Any

import pytest

from wan22.adapter import Adapter
from wan22.errors import InvalidRequest, Reason

GOOD = {"base_variant": "t2v-a14b", "target_expert": "high", "min_strength": 0.0, "max_strength": 1.5, "turbo": True}


def test_what_was_written_is_read_again() -> None:
    adapter = Adapter(base_variant="i2v-a14b", target_expert="low", min_strength=-1, max_strength=2, turbo=True)
    assert Adapter.from_json(adapter.to_json()) == adapter
    with_alpha = Adapter(base_variant="ti2v-5b", target_expert="both", min_strength=0, max_strength=1, alpha=16.0)
    assert Adapter.from_json(with_alpha.to_json()) == with_alpha
    assert b"alpha" not in adapter.to_json()
    assert Adapter.from_json(json.dumps(GOOD).encode()).target_expert == "high"


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"base_variant": "sd"}, "base_variant", "'sd': use one of t2v-a14b"),
        ({"base_variant": []}, "base_variant", "use one of"),
        ({"target_expert": "all"}, "target_expert", "'all': use high, low, both"),
        ({"base_variant": "ti2v-5b"}, "target_expert", "ti2v-5b has one expert: use both"),
        ({"min_strength": 2.0}, "min_strength", "use at most max_strength, 1.5"),
        ({"max_strength": float("inf")}, "max_strength", "from -10 to 10"),
        ({"max_strength": 11}, "max_strength", "is 11: use a number from -10 to 10"),
        ({"min_strength": True}, "min_strength", "use a number"),
        ({"alpha": 0}, "alpha", "is 0: use a number above 0"),
        ({"alpha": "16"}, "alpha", "use a number above 0"),
        ({"turbo": "yes"}, "turbo", "'yes': use true or false"),
    ],
)
def test_what_no_adapter_can_be_is_refused_by_field(change: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        Adapter.from_json(json.dumps({**GOOD, **change}).encode())
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "it is not JSON"),
        (b"[]", "it is no JSON object"),
        (b"[" * 100_000, "it is not JSON"),
        (json.dumps({**GOOD, "approved": True}).encode(), "the key 'approved', and may have alpha, base_variant"),
        (b'{"base_variant": "t2v-a14b"}', "it lacks max_strength"),
    ],
)
def test_other_files_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        Adapter.from_json(content)
    assert caught.value.reason is Reason.FORBIDDEN_FILE
