from __future__ import annotations

from pathlib import Path

import pytest

from wan22_testing.process_kubelet.environment import command_of, expand, field_of
from wan22_testing.process_kubelet.images import Image, Images

POD = {
    "metadata": {"name": "pod", "uid": "1", "labels": {"wan22.dev/pool": "p"}},
    "spec": {"nodeName": "node"},
    "status": {"podIP": "127.20.1.1"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A"), ("", "")],
)
def test_references_are_filled_in_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_words_of_a_container_are_translated_to_this_machine() -> None:
    container = {"args": ["--cache=/cache/a", "/cache", "--host=0.0.0.0", "/cachet", "--uid=$(UID)"]}
    image = Image(("serve",))
    command = command_of(container, POD, image, {"UID": "7"}, {"/cache": Path("/here/claim")})
    assert command == ["serve", "--cache=/here/claim/a", "/here/claim", "--host=127.20.1.1", "/cachet", "--uid=7"]
    assert command_of({"command": ["other"]}, POD, image, {}, {}) == ["other"]


def test_fields_are_read_as_the_downward_api_reads_them() -> None:
    assert field_of(POD, "metadata.labels['wan22.dev/pool']") == "p"
    assert field_of(POD, "metadata.annotations['none']") == ""
    assert field_of(POD, "status.podIP") == "127.20.1.1"


@pytest.mark.parametrize("reference", ["wan22/worker", "wan22/worker:1.2", f"wan22/worker@sha256:{'0' * 64}"])
def test_an_image_is_found_without_its_tag(reference: str) -> None:
    image = Image(("serve",))
    assert Images({"wan22/worker": image}).find(reference) is image
    assert Images({"localhost:5000/wan22/worker": image}).find(reference) is None
