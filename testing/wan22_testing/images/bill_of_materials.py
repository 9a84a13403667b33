"""What an image is made of, as CycloneDX: the Python packages and the Debian packages that its layers hold."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from wan22_testing.images.archive import Image

SCHEMA = SchemaVersion.V1_6
DPKG = "var/lib/dpkg/status"
ENVIRONMENT = {"extra": ""}
"""Edges are drawn for what a package needs always; an extra's packages hang from the image alone."""


def bill_of_materials(image: Image, name: str) -> str:
    """Returns the JSON of an image's components; the same image gives the same text."""
    with tempfile.TemporaryDirectory() as folder:
        dpkg = ""
        for file, content in image.files(_tells):
            path = Path(file.name)
            if file.name == DPKG:
                dpkg = content.decode()
            else:
                kept = Path(folder) / path.parent.name
                kept.mkdir(exist_ok=True)
                (kept / path.name).write_bytes(content)
        found = list(distributions(path=[folder]))
        bom = _bom(image, name, found, list(_debian(dpkg)))
    bom.validate()
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2) + "\n"


def _tells(path: str) -> bool:
    return path == DPKG or path.endswith(".dist-info/METADATA")


def _bom(image: Image, name: str, found: list[Distribution], debian: list[Component]) -> Bom:
    labels = image.config["config"].get("Labels", {})
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"oci:{name}@{image.digest}"))
    bom.metadata.timestamp = datetime.fromisoformat(labels["org.opencontainers.image.created"])
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=labels["org.opencontainers.image.version"],
        bom_ref=f"oci:{name}",
        purl=PackageURL("oci", name=name.rpartition("/")[2], version=image.digest),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest.removeprefix("sha256:"))],
    )
    python = {normal(distribution.name): _python(distribution) for distribution in found}
    components = [*python.values(), *debian]
    bom.components.update(components)
    bom.register_dependency(bom.metadata.component, components)
    for distribution in found:
        needed = (Requirement(line) for line in distribution.requires or ())
        always = {normal(one.name) for one in needed if one.marker is None or one.marker.evaluate(ENVIRONMENT)}
        bom.register_dependency(
            python[normal(distribution.name)], [python[one] for one in sorted(always) if one in python]
        )
    return bom


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python(distribution: Distribution) -> Component:
    name, metadata = normal(distribution.name), distribution.metadata.json
    purl = PackageURL("pypi", name=name, version=distribution.version)
    expression = str(metadata.get("license_expression") or metadata.get("license") or "")
    licenses = []
    if expression and "\n" not in expression:
        licenses = [
            LicenseFactory().make_from_string(expression, license_acknowledgement=LicenseAcknowledgement.DECLARED)
        ]
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=distribution.version,
        description=str(metadata["summary"]) if "summary" in metadata else None,
        licenses=licenses,
        purl=purl,
        bom_ref=str(purl),
    )


def _debian(status: str) -> Iterator[Component]:
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields.get("Status") == "install ok installed":
            qualifiers = {"arch": fields["Architecture"]}
            purl = PackageURL("deb", "debian", fields["Package"], fields["Version"], qualifiers)
            yield Component(
                type=ComponentType.LIBRARY,
                name=fields["Package"],
                version=fields["Version"],
                purl=purl,
                bom_ref=str(purl),
            )
