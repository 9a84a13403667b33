from __future__ import annotations

from pathlib import Path

import pytest

from wan22_testing.cluster.kubectl import Kubectl

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_taken_by_the_cluster_and_named_in_the_table(kubectl: Kubectl, example: Path) -> None:
    asked = ("--filename", str(example))
    made = kubectl("apply", *asked, "--output=name").split()
    kubectl("apply", *asked)  # once more changes nothing
    generations = [kubectl.get(name)["metadata"].get("generation", 1) for name in made]
    kubectl("delete", *asked)
    assert set(generations) == {1}
    assert f"[{example.name}]({example.name})" in (example.parent / "README.md").read_text()
