from __future__ import annotations

import json

import pytest

from wan22.errors import FailedPrecondition
from wan22_inference.engine.lora.scaling import METADATA, Scaling, read_scaling


def test_a_layers_own_alpha_goes_before_its_pattern_and_that_before_the_files() -> None:
    scaling = Scaling(16.0, {"attn1.to_q": 4.0})
    assert scaling.factor("blocks.0.attn1.to_q", 8, 2.0) == 0.25
    assert scaling.factor("blocks.0.attn1.to_q", 8, None) == 0.5
    assert scaling.factor("blocks.0.attn1.to_k", 8, None) == 2.0
    assert scaling.factor("blocks.0.xattn1.to_q", 8, None) == 2.0
    assert Scaling().factor("blocks.0.attn1.to_q", 8, None) == 1.0
    assert Scaling(16.0, rank_stabilised=True).factor("x", 16, None) == 4.0


def test_each_expert_may_have_its_own_configuration() -> None:
    config = {"transformer.lora_alpha": 4, "transformer_2.lora_alpha": 8}
    assert read_scaling({METADATA: json.dumps(config)}, None) == (Scaling(4.0), Scaling(8.0))
    assert read_scaling({METADATA: json.dumps({"lora_alpha": 4})}, 99.0) == (Scaling(4.0), Scaling(4.0))
    assert read_scaling({}, 2.0) == (Scaling(2.0), Scaling(2.0))


def test_an_expression_is_not_evaluated() -> None:
    config = {"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 2}}
    with pytest.raises(FailedPrecondition, match="is an expression"):
        read_scaling({METADATA: json.dumps(config)}, None)
