from __future__ import annotations

from collections.abc import Callable

import pytest

from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.lora.keys import Key, Part, TargetNames, other_kind, parse
from wan22_inference.engine.lora.targets import Targets, targets_of
from wan22_inference.engine.model import Model
from wan22_testing.tiny_models import TINY_VARIANTS


@pytest.fixture(params=TINY_VARIANTS)
def targets(request: pytest.FixtureRequest, tiny_model: Callable[[str], Model]) -> Targets:
    return targets_of(tiny_model(request.param).transformers[0])


def test_every_layer_is_found_under_every_style_of_its_name(targets: Targets) -> None:
    names = TargetNames(targets.layers, targets.vectors)
    assert len(targets.layers) == 2 * 10 + 7  # of two blocks, and of embeddings and head
    for layer in targets.layers:
        for style in checkpoint_names(layer):
            for spelling, prefix in ((style, "transformer."), (style.replace(".", "_"), "lora_unet_")):
                key = parse(f"{prefix}{spelling}.lora_down.weight")
                assert key == Key(spelling, Part.DOWN, second=False)
                assert names.layer(spelling) == layer


def test_layers_and_vectors_are_all_that_a_dit_has(
    targets: Targets, tiny_model: Callable[[str], Model], request: pytest.FixtureRequest
) -> None:
    variant = request.node.callspec.params["targets"]
    of_layers = {f"{layer}.{leaf}" for layer in targets.layers for leaf in ("weight", "bias")}
    assert of_layers | set(targets.vectors) == set(tiny_model(variant).transformers[0].state_dict())


def test_every_parameter_is_found_by_what_lightx2v_calls_its_sum(targets: Targets) -> None:
    names = TargetNames(targets.layers, targets.vectors)
    suffixes = {"weight": ".diff", "bias": ".diff_b", "modulation": ".diff_m"}
    for parameter in (*targets.vectors, *(f"{layer}.weight" for layer in targets.layers)):
        base, _, leaf = checkpoint_names(parameter)[1].rpartition(".")
        key = parse(f"diffusion_model.{base}{suffixes[leaf]}")
        assert key is not None
        assert names.parameter(key) == parameter


@pytest.mark.parametrize(
    ("name", "second"),
    [("transformer.x.alpha", False), ("transformer_2.x.alpha", True), ("base_model.model.transformer_2.x.alpha", True)],
)
def test_a_prefix_tells_the_expert(name: str, second: bool) -> None:
    assert parse(name) == Key("x", Part.ALPHA, second=second)


def test_other_kinds_are_known_by_their_parts() -> None:
    assert other_kind("blocks.0.ffn.0.dora_scale") == "DoRA"
    assert other_kind("blocks.0.ffn.0.lora_down.weight") is None
    assert parse("blocks.0.ffn.0.weight") is None
