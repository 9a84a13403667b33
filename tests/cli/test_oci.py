"""`wan22 models push` and `pull` against a real OCI registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.common.oci.registries import needs_programs

from wan22_testing.oci_registry import OciRegistryProcess
from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

TINY = "t2v-a14b-tiny"
MODEL = f"wan2.2-{TINY}"


@pytest.fixture
def wan22(tmp_path: Path) -> Wan22Command:
    return Wan22Command(tmp_path)


@needs_programs
async def test_a_model_goes_to_an_oci_registry_and_comes_back_into_another_registry(
    wan22: Wan22Command, tmp_path: Path
) -> None:
    registries = [ServiceProcess("wan22_registry", tmp_path / f"log{n}", root=tmp_path / f"root{n}") for n in (1, 2)]
    for process in registries:
        process.start()
    try:
        for process in registries:
            await process.until()
        first, second = [["--registry", process.address] for process in registries]
        async with OciRegistryProcess(tmp_path / "remote") as remote:
            version = (await wan22("models", "import", str(shared_folder(TINY)), *first)).out.strip()
            there = f"oci://{remote.host}/models/{MODEL}:v1"
            pushed = await wan22("models", "push", MODEL, there, *first)
            assert (pushed.exit_code, pushed.out) == (0, f"{there} is {version}.\n"), pushed.err
            again = (await wan22("models", "push", version, there, "--json", *first)).json()
            assert again == {"pushed": version, "to": there, "digest": version.rpartition("/")[2]}
            pulled = await wan22("models", "pull", there, *second)
            assert (pulled.exit_code, pulled.out) == (0, f"{version}\n"), pulled.err
            named = (await wan22("models", "pull", there, "--model", "other", "--tag", "a", "--json", *second)).json()
        assert named["name"] == version.replace(MODEL, "other")
        assert named["tags"] == ["a"]
        assert (await wan22("models", "get", f"{MODEL}:v1", "--json", *second)).json()["name"] == version
        assert (await wan22("models", "verify", version, *second)).exit_code == 0
    finally:
        for process in registries:
            process.kill()


async def test_a_reference_or_name_that_cannot_be_is_exit_code_2_and_nobody_there_3(wan22: Wan22Command) -> None:
    reference = await wan22("models", "pull", "docker://host/m")
    name = await wan22("models", "pull", "oci://localhost:1/my_model")
    assert (reference.exit_code, name.exit_code) == (2, 2)
    assert "use oci://HOST" in reference.err
    assert "my_model does not end in the name of a model: pass --model" in name.err
