"""What is said to be in an image."""

import json

from cyclonedx.validation.json import JsonStrictValidator

from wan22_testing.images.archive import Image
from wan22_testing.images.bill_of_materials import SCHEMA, bill_of_materials


def test_an_images_size_is_that_of_its_layers_packed_and_of_its_files_unpacked(image: Image) -> None:
    assert image.packed_bytes == sum(layer["size"] for layer in image.manifest["layers"])
    assert image.unpacked_bytes() == sum(len(content) for _, content in image.files(lambda _: True))


def test_a_list_names_the_packages_of_python_and_of_debian_and_is_cyclonedx(image: Image) -> None:
    text = bill_of_materials(image, "example.com/wan22/gateway")
    assert JsonStrictValidator(SCHEMA).validate_str(text) is None
    bom = json.loads(text)
    assert {component["purl"] for component in bom["components"]} == {
        "pkg:pypi/first@1.0",
        "pkg:pypi/other-package@2.0",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64",
    }
    assert bom["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}
    ]
    assert bom["metadata"]["timestamp"].startswith("2026-03-01T08:00:00")
    (first,) = [component for component in bom["components"] if component["name"] == "first"]
    assert first["licenses"] == [{"license": {"acknowledgement": "declared", "id": "Apache-2.0"}}]


def test_a_list_says_what_a_package_needs_always(image: Image) -> None:
    bom = json.loads(bill_of_materials(image, "example.com/wan22/gateway"))
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    assert edges["pkg:pypi/first@1.0"] == ["pkg:pypi/other-package@2.0"]
    assert edges["pkg:pypi/other-package@2.0"] == []


def test_the_same_image_gives_the_same_list(image: Image) -> None:
    assert bill_of_materials(image, "gateway") == bill_of_materials(image, "gateway")
