"""Builds the images of this working tree into OCI archives, with a list of what is in each: `make images`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wan22_testing.images import debian_base
from wan22_testing.images.archive import Image
from wan22_testing.images.bill_of_materials import bill_of_materials
from wan22_testing.images.buildah import Buildah
from wan22_testing.images.pip_settings import write_pip_secrets
from wan22_testing.images.source import Source

ROOT = Path(__file__).parent.parent
TARGETS = ("gateway", "registry", "operator", "worker", "simulated-worker")


def main() -> int:
    """Returns the exit code."""
    given = _parser().parse_args()
    buildah, source = Buildah(), Source(ROOT)
    arguments = {"ACCELERATOR": "cuda"}  # as in the Containerfile: by that alone buildah leaves out stages it needs
    arguments |= dict(argument.split("=", 1) for argument in given.build_arg)
    if given.debian:
        bases = debian_base.make(buildah, given.debian, given.mirror, given.security_mirror)
        arguments |= dict(zip(("BASE", "BUILD_BASE"), bases, strict=True))
    given.output.mkdir(parents=True, exist_ok=True)
    tag = source.tag
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "context"
        source.copy_to(context)
        secrets = write_pip_secrets(Path(folder))
        for target in given.targets or TARGETS:
            name, archive = f"{given.repository}/{target}", given.output / f"{target}.tar"
            buildah.build(
                context,
                target,
                f"{name}:{tag}",
                arguments=arguments,
                labels=dict(_labels(source, target)),
                secrets=secrets,
                flags=["--no-cache"] if given.no_cache else [],
            )
            buildah.export(f"{name}:{tag}", archive)
            image = Image.read(archive)
            archive.with_suffix(".cdx.json").write_text(bill_of_materials(image, name))
            packed, unpacked = (f"{size / 1e6:.0f} MB" for size in (image.packed_bytes, image.unpacked_bytes()))
            print(f"{archive}\t{name}:{tag}\t{packed}, unpacked {unpacked}\t{image.digest}", flush=True)
    return 0


def _labels(source: Source, target: str) -> Iterator[tuple[str, str]]:
    """The annotations that the OCI image specification predefines."""
    prefix = "org.opencontainers.image"
    yield f"{prefix}.title", f"wan22 {target}"
    yield f"{prefix}.version", source.version
    yield f"{prefix}.revision", source.commit
    yield f"{prefix}.created", source.created
    yield f"{prefix}.licenses", "Apache-2.0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_images.py", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[*TARGETS, []], help="all by default")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "images", metavar="FOLDER")
    parser.add_argument("--repository", default="localhost/wan22", help="where the images will be pulled from")
    parser.add_argument("--build-arg", action="append", default=[], type=_argument, metavar="NAME=VALUE")
    parser.add_argument("--debian", metavar="SUITE", help="make the base of Debian's packages by debootstrap")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--security-mirror", default="http://deb.debian.org/debian-security")
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew")
    return parser


def _argument(text: str) -> str:
    if not re.fullmatch(r"[A-Z_]+=.*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE, such as ACCELERATOR=cpu")
    return text


if __name__ == "__main__":
    sys.exit(main())
