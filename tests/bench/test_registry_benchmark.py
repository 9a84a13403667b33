from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import UMT5Config, UMT5EncoderModel

from wan22.precision import is_quantised
from wan22.variants import VARIANTS
from wan22_bench.registry import stages
from wan22_bench.registry.command import main
from wan22_bench.registry.loading import load
from wan22_bench.registry.model_weights import VAE_DIMS, Shape, make_weights, quantised, remember, write_weights
from wan22_bench.registry.packing import A14B, pack
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.device_loading import DECODERS, SPARE_BUFFERS
from wan22_inference.engine.loading.frames import PlainDecoder
from wan22_inference.engine.loading.planes import merge_plainly
from wan22_inference.engine.loading.spent import OF_DEVICE_THREAD, ON_DEVICE, Step
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.forwards import Work
from wan22_testing.sizes import UMT5_XXL


def test_a_small_run_measures_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "registry.json"
    main(
        [
            "--device",
            "cpu",
            "--size",
            "1e6",
            "--folder",
            str(tmp_path),
            "--json",
            str(report),
            "--cold-start",
            "t2v-a14b-tiny",
        ]
    )
    assert list(tmp_path.iterdir()) == [report]
    result = json.loads(report.read_text())
    assert result["name"] == "registry"
    rows = result["rows"]
    spent = [row for row in rows if row["what"].startswith("of that load's ")]
    assert [row["what"].split(" lanes: ")[1] for row in spent] == [
        "making the lane and its memory",
        "waiting for the next batch and the memory of its tensors",
        "reading",
        "digests",
        "waiting for the device",
        "decoding on the host",
        "putting what the host decoded into tensors",
    ]
    assert all(row["value"] > 0 and row["unit"] == "s" for row in spent)
    bounds = [row for row in rows if row["what"].startswith(("writing a pack", "the digest of", "the share of"))]
    assert [row["value"] > 0 for row in bounds] == [True, True, False]  # all of it was cached
    rows = [row for row in rows if row not in spent and row not in bounds]
    ids = [row["id"] for row in rows]
    assert ids == ["P10", "P10b", "P10b", "P9b", "P9b", None, None, None, None, None, "P8", "P9", "P9c"]
    ratio, eight, version, packing, by_processor, from_cache, plain, from_disk, memory, start = rows[:10]
    assert 0.6 < ratio["value"] < 0.72
    assert 0.38 < eight["value"] < 0.45
    assert eight["value"] < version["value"] < ratio["value"]
    for row in (packing, by_processor, from_cache):
        assert row["value"] > 0
        assert row["peer"] > 0
    assert plain["value"] > 0
    assert from_disk["value"] > 0
    assert [row["goal"] for row in (from_cache, from_disk)] == [None, None]  # they are a GPU's
    assert 0 <= memory["value"] < memory["goal"]
    assert start["value"] > 0
    assert "to what it needs of the model" in start["what"]
    assert [(row["value"], row["goal"]) for row in rows[10:]] == [(None, 60), (None, 0.95), (None, 8)]
    assert "P9b" in capsys.readouterr().out


def test_a_run_that_fails_keeps_what_it_measured(small_disk: Path, tmp_path: Path) -> None:
    report = tmp_path / "registry.json"
    arguments = ["--device", "cpu", "--size", "1e6", "--folder", str(small_disk), "--json", str(report)]
    with pytest.raises(SafetensorError, match="No space left"):
        main([*arguments, "--cold-start", "t2v-a14b-tiny"])
    ids = [row["id"] for row in json.loads(report.read_text())["rows"]]
    assert ids == ["P10", "P10b", "P10b", "P9b", None, None, "P9b", *[None] * 12]


def test_each_stage_of_decoding_on_a_device_is_measured_alone(tmp_path: Path) -> None:
    """On the CPU, which then is the device."""
    device, plain, packed = torch.device("cpu"), tmp_path / "w.safetensors", tmp_path / "w.safetensors.pack"
    write_weights(make_weights(1_000_000, device), plain)
    pack(plain, packed)
    remember(packed)
    rows = list(stages.alone(packed, device, PlainDecoder, merge_plainly))
    assert [row.what.split(" alone")[0].split(" by ")[0] for row in rows] == [
        f"making the {stages.lanes_count() + SPARE_BUFFERS} buffers of a process's first load",
        "taking memory for the tensors of the device",
        "reading out of the page cache",
        "reading out of the page cache",
        "copying to the device",
        "reading, copying and the host's work",
        "decoding a batch a call",
        "decoding a whole group a call",
        "decoding a whole group a call",
        "merging a whole group",
    ]
    assert all(row.value is not None and 0 < row.value < math.inf for row in rows)
    assert [row.unit for row in rows] == ["s", *["GB/s"] * 9]


def test_a_load_that_decodes_on_the_device_tells_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, plain, packed = torch.device("cpu"), tmp_path / "w.safetensors", tmp_path / "w.safetensors.pack"
    write_weights(make_weights(1_000_000, device), plain)
    pack(plain, packed)
    remember(packed)
    monkeypatch.setattr(loaders, "find_decoder", lambda _: PlainDecoder)
    loaded, _ = load(packed, device)
    of_host = {Step.MAKING, Step.WAITING, Step.HOST_DECODING, Step.PUTTING}
    assert set(loaded.spent) == set(Step) - of_host - {Step.CHECKING}  # digests come behind
    of_thread = sum(loaded.spent[step] for step in OF_DEVICE_THREAD)
    of_readers = sum(loaded.spent[step] for step in set(Step) - OF_DEVICE_THREAD - ON_DEVICE)
    assert 0 < of_thread < loaded.seconds
    assert 0 < of_readers < loaded.seconds * stages.lanes_count()
    rows = {row.what.split(": ")[1]: row for row in stages.spent(loaded) if row.unit == "s"}
    for step, count in ((Step.READING, stages.lanes_count()), (Step.LAUNCHING, 1), (Step.DECODING, DECODERS)):
        assert rows[step].value == pytest.approx(loaded.spent[step] / count)
    assert "of a thread of" in rows[Step.READING].what
    assert "that read" in rows[Step.READING].what
    assert "the device's thread" in rows[Step.LAUNCHING].what
    for step in (Step.GIVING, Step.LAUNCHING):
        on_a_core = rows[f"{step}, on a core and not waiting for a lock"].value
        assert on_a_core == loaded.ran[step]
        assert 0 < on_a_core < loaded.seconds


def test_the_parts_of_a_version_are_counted_as_an_import_keeps_them() -> None:
    work = Work("t2v-a14b", 40, 832, 480, 81)
    with torch.device("meta"):
        expert = Transformer(read_transformer_config(work.config, "expert"), torch.bfloat16)
        encoder = UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", **UMT5_XXL))
        vae = Vae(read_vae_config({"base_dim": VAE_DIMS["t2v-a14b"]}), torch.float32)
    tensors = [("transformer/w", checkpoint_names(name)[0], tensor) for name, tensor in expert.state_dict().items()] * 2
    tensors += [("text_encoder/w", name, tensor) for name, tensor in encoder.named_parameters()]  # ties once
    eight = sum(2 * tensor.numel() for path, name, tensor in tensors if is_quantised(VARIANTS["t2v-a14b"], path, name))
    assert A14B["float8"] == pytest.approx(eight, rel=1e-3)
    assert A14B["bfloat16"] == pytest.approx(sum(2 * tensor.numel() for *_, tensor in tensors) - eight, rel=1e-3)
    assert A14B["float32"] == pytest.approx(sum(4 * tensor.numel() for tensor in vae.parameters()), rel=1e-2)


@pytest.mark.parametrize("size", [1e6, 1e8, 0.71e9, 3e9])
def test_the_weights_have_about_the_size_that_was_asked_for(size: float) -> None:
    shape = Shape.of(int(size))
    assert shape.dim == 5120 if size >= 0.7e9 else shape.dim < 5120
    if size <= 1e6:
        weights = make_weights(int(size), torch.device("cpu"))
        assert 0.5 < sum(tensor.nbytes for tensor in weights.values()) / size < 1.5


def test_quantised_weights_are_half_as_large_and_have_scales() -> None:
    weights = make_weights(1_000_000, torch.device("cpu"))
    eight = quantised(weights)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    assert eight[name].dtype is torch.float8_e4m3fn
    restored = eight[name].float() * eight[f"{name}_scale"].unsqueeze(1)
    torch.testing.assert_close(restored, weights[name].float(), rtol=0.07, atol=1e-3)
