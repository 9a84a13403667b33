"""`wan22 models` against a real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.registry.model_folder import tensor

from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

pytestmark = pytest.mark.asyncio(loop_scope="module")
TINY = "t2v-a14b-tiny"
MODEL = f"wan2.2-{TINY}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("registry")
    process = ServiceProcess("wan22_registry", folder / "log", root=folder / "root")
    process.start()
    await process.until()
    yield process
    process.kill()


@pytest.fixture
def wan22(tmp_path: Path) -> Wan22Command:
    return Wan22Command(tmp_path)


@pytest_asyncio.fixture(loop_scope="module")
async def version(registry: ServiceProcess, wan22: Wan22Command) -> str:
    """The name of an imported version; a repeated import finds everything there."""
    folder = str(shared_folder(TINY))
    result = await wan22("models", "import", folder, "--variant", TINY, "--registry", registry.address)
    assert result.exit_code == 0, result.err
    return result.out.strip()


async def test_an_imported_model_is_listed_and_shown_under_its_name_and_tag(
    registry: ServiceProcess, wan22: Wan22Command, version: str
) -> None:
    at = ["--registry", registry.address]
    listed = (await wan22("models", "list", *at)).out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [[version, "latest", TINY]]
    assert [model["name"] for model in (await wan22("models", "list", "--json", *at)).json_lines()] == [
        f"models/{MODEL}"
    ]

    by_tag = (await wan22("models", "get", MODEL, "--json", *at)).json()
    by_name = (await wan22("models", "get", version, "--json", *at)).json()
    assert by_tag == by_name
    assert by_tag["name"] == version
    shown = (await wan22("models", "get", MODEL, *at)).out
    assert f"name       {version}" in shown
    assert "transformer_2/config.json" in shown


async def test_a_pinned_version_is_not_deleted(registry: ServiceProcess, wan22: Wan22Command, version: str) -> None:
    at = ["--registry", registry.address]
    assert (await wan22("models", "pin", MODEL, *at)).out == f"{version} is pinned.\n"
    refused = await wan22("models", "delete", version, *at)
    assert refused.exit_code == 1
    assert "pinned" in refused.err

    assert (await wan22("models", "unpin", MODEL, *at)).out == f"{version} is not pinned.\n"
    assert (await wan22("models", "delete", version, "--json", *at)).json() == {"deleted": version}
    assert (await wan22("models", "list", "--json", *at)).out == ""


async def test_verify_names_a_damaged_file(registry: ServiceProcess, wan22: Wan22Command, version: str) -> None:
    at = ["--registry", registry.address]
    sound = await wan22("models", "verify", MODEL, *at)
    assert sound.exit_code == 0
    assert sound.out.startswith(f"{version}: ")

    files = (await wan22("models", "get", MODEL, "--json", *at)).json()["files"]
    file = next(file for file in files if file["path"] == "vae/config.json")
    blob = next(registry.log.parent.rglob(file["digest"].removeprefix("sha256:")))
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole.replace(b"{", b"[", 1))
    damaged = await wan22("models", "verify", MODEL, *at)
    blob.write_bytes(whole)
    assert damaged.exit_code == 1
    assert damaged.err.startswith("Error: vae/config.json has sha256:")
    assert damaged.err.endswith(f"not {file['digest']}: import the model again.\n")


async def test_the_variant_shows_in_the_folder_and_is_asked_for_where_it_does_not(
    registry: ServiceProcess, wan22: Wan22Command, version: str
) -> None:
    at = ["--registry", registry.address]
    assert (await wan22("models", "import", str(shared_folder(TINY)), *at)).out.strip() == version
    (wan22.folder / "model").mkdir()
    (wan22.folder / "model" / "model_index.json").write_text("{}")
    unknown = await wan22("models", "import", "model", *at)
    assert unknown.exit_code == 2
    assert "Pass --variant, one of t2v-a14b" in unknown.err


async def test_an_export_gives_back_what_was_imported(
    registry: ServiceProcess, wan22: Wan22Command, version: str
) -> None:
    result = await wan22("models", "export", MODEL, "out", "--registry", registry.address)
    assert (result.exit_code, result.out) == (0, f"{version} is in out.\n")
    folder = shared_folder(TINY)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert sorted(path.relative_to(wan22.folder / "out") for path in (wan22.folder / "out").rglob("*.*")) == names
    for name in names:
        assert (wan22.folder / "out" / name).read_bytes() == (folder / name).read_bytes()
    again = await wan22("models", "export", MODEL, "out", "--registry", registry.address, "--json")
    assert again.exit_code == 2
    assert "out is not an empty folder" in again.err


async def test_a_pickle_is_refused_by_name(registry: ServiceProcess, wan22: Wan22Command) -> None:
    folder = wan22.folder / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    (folder / "weights.bin").write_bytes(b"\x80\x04.")
    result = await wan22("models", "import", "model", "--variant", TINY, "--registry", registry.address)
    assert result.exit_code == 2
    assert "model/weights.bin is a pickle, which can run code: convert it to safetensors" in result.err


async def test_a_single_file_takes_a_components_place_in_another_version(
    registry: ServiceProcess, wan22: Wan22Command, version: str
) -> None:
    at = ["--registry", registry.address]
    source = shared_folder(TINY)
    file = str(source / "transformer_2" / "diffusion_pytorch_model.safetensors")
    call = ["models", "import-component", file, "mixed:v1", "--base", MODEL]
    made = (await wan22(*call, "--component", "transformer", "--json", *at)).json()
    whole = (await wan22("models", "get", MODEL, "--json", *at)).json()
    weights = "transformer/diffusion_pytorch_model.safetensors.pack"
    digests = [{f["path"]: f["digest"] for f in of["files"]} for of in (made, whole)]
    assert made["tags"] == ["v1"]
    assert digests[0].keys() == digests[1].keys()
    assert digests[0][weights] == digests[1][weights.replace("transformer", "transformer_2")]
    assert {path for path in digests[0] if digests[0][path] != digests[1][path]} == {weights}

    vae = str(source / "vae" / "diffusion_pytorch_model.safetensors")
    wrong = await wan22(*call[:2], vae, *call[3:], "--component", "transformer", *at)
    assert (wrong.exit_code, "is no transformer: it has no tensor patch_embedding" in wrong.err) == (2, True)
    unknown = await wan22(*call, "--component", "unet", *at)
    assert "'unet': t2v-a14b-tiny has transformer, transformer_2, text_encoder, vae" in unknown.err
    await wan22("models", "delete", "mixed:v1", *at)


async def test_an_adapter_is_imported_shown_approved_and_unapproved(
    registry: ServiceProcess, wan22: Wan22Command
) -> None:
    at = ["--registry", registry.address]
    (wan22.folder / "style.safetensors").write_bytes(tensor(b"lora"))
    call = ["models", "import-lora", "style.safetensors", "style:v1", "--base", TINY]
    name = (await wan22(*call, "--expert", "high", "--max-strength", "1.25", *at)).out.strip()
    assert name.startswith("models/style/versions/sha256:")
    shown = (await wan22("models", "get", "style:v1", *at)).out
    assert "adapter    expert high, strength 0 to 1.25, not approved\n" in shown
    assert (await wan22("models", "approve", "style:v1", *at)).out == f"{name} is approved.\n"
    listed = (await wan22("models", "list", "--json", *at)).json_lines()
    (version,) = next(model for model in listed if model["name"] == "models/style")["versions"]
    assert version["adapter"] == {"target_expert": "HIGH", "max_strength": 1.25, "approved": True}
    assert (await wan22("models", "unapprove", name, *at)).out == f"{name} is not approved.\n"

    turbo = await wan22(*call, "--turbo", "--approve", "--json", *at)
    assert turbo.json()["adapter"] == {"target_expert": "BOTH", "max_strength": 1.5, "turbo": True, "approved": True}
    wrong = await wan22(*call, "--expert", "all", *at)
    assert (wrong.exit_code, "'all': use high, low, both" in wrong.err) == (2, True)
    for reference in (name, "style:v1"):
        assert (await wan22("models", "delete", reference, *at)).exit_code == 0


async def test_an_unknown_model_is_exit_code_1_and_an_unreachable_registry_3(
    registry: ServiceProcess, wan22: Wan22Command
) -> None:
    unknown = await wan22("models", "get", "no-such-model", "--registry", registry.address)
    assert unknown.exit_code == 1
    assert "no-such-model" in unknown.err
    unreachable = await wan22("models", "list", "--registry", "127.0.0.1:1")
    assert unreachable.exit_code == 3
    assert unreachable.err.startswith("Error: 127.0.0.1:1 did not answer for 5 s (")


async def test_an_unknown_variant_or_reference_is_exit_code_2(registry: ServiceProcess, wan22: Wan22Command) -> None:
    (wan22.folder / "model").mkdir()
    variant = await wan22("models", "import", "model", "--variant", "t2v", "--registry", registry.address)
    reference = await wan22("models", "get", "Not A Model", "--registry", registry.address)
    assert (variant.exit_code, reference.exit_code) == (2, 2)
    assert "'t2v' is no variant" in variant.err
    assert "use MODEL[:TAG][@sha256:DIGEST]" in reference.err
