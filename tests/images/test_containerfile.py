"""The Containerfile, read as text: nothing is built."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("gateway", "registry", "operator", "worker", "simulated-worker")
MODULES = {
    "gateway": "wan22_gateway",
    "registry": "wan22_registry",
    "operator": "wan22_operator",
    "worker": "wan22_inference",
    "simulated-worker": "wan22_testing.simulated_worker",
}


@pytest.fixture(scope="module")
def stages() -> dict[str, tuple[str, str]]:
    """Each stage's parent and text."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = re.finditer(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    return {match[2]: (match[1], match[3]) for match in found}


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_starts_its_own_program_as_user_65532_and_from_nothing_that_installs(
    stages: dict[str, tuple[str, str]], target: str
) -> None:
    parent, text = stages[target]
    assert parent == ("runtime" if target != "worker" else "worker-${ACCELERATOR}-runtime")
    assert f'ENTRYPOINT ["python", "-m", "{MODULES[target]}"]' in text
    assert "RUN" not in text
    base, runtime = stages["runtime"]
    assert base == "${BASE}"
    assert "USER 65532:65532" in runtime
    assert "install" not in runtime.replace("ensurepip", "")


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_has_its_dependencies_in_a_layer_below_wan22_itself(
    stages: dict[str, tuple[str, str]], target: str
) -> None:
    copies = re.findall(r"^COPY --from=(\S+) (\S+) (\S+)$", stages[target][1], re.MULTILINE)
    launchers = ("worker-launchers", "/launchers", "/opt/wan22/share/wan22/launchers")
    assert copies == [
        (f"{target}-packages", "/opt/wan22", "/opt/wan22"),
        ("project", "/project", "/opt/wan22"),
        *([launchers] if target == "worker" else []),
    ]
    assert f"{target}-packages" in stages


def test_a_compiler_is_in_no_image_but_where_launchers_are_built(stages: dict[str, tuple[str, str]]) -> None:
    assert {name for name, (_, text) in stages.items() if "gcc" in text} == {"worker-cuda-launchers"}
    for target in TARGETS:
        names = [target]
        while (parent := stages[names[-1]][0].replace("${ACCELERATOR}", "cuda")) in stages:
            names.append(parent)
        assert "worker-cuda-launchers" not in names


def test_what_is_copied_from_the_tree_is_there(stages: dict[str, tuple[str, str]]) -> None:
    names = [
        name
        for _, text in stages.values()
        for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for name in copied.split()
    ]
    assert "constraints.txt" in names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_only_the_layers_of_packages_see_a_package_index(stages: dict[str, tuple[str, str]]) -> None:
    with_secrets = {name for name, (_, text) in stages.items() if "--mount=type=secret" in text}
    assert with_secrets == {name for name in stages if name.endswith("-packages") and name != "worker-packages"} | {
        "project"
    }
