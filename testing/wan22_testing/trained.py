"""Models made of the trained tiny family's parts; docs/tiny-models.md tells of them.

`python -m wan22_testing.trained OUT VARIANT...` writes one folder a variant, ready for `wan22 models import`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wan22.variants import VARIANTS
from wan22_testing import tiny_models
from wan22_testing.tiny_models import TINY_VARIANTS, write_frame
from wan22_testing.trained_parts import FOLDER, vae_of


def make(variant_name: str, folder: Path, parts: Path = FOLDER) -> None:
    """Writes one variant's model in diffusers' format into a new folder, from the parts of a training.

    A variant that has not been trained gets random weights.
    """
    if not (parts / variant_name).is_dir():
        tiny_models.make(variant_name, folder)
        return
    write_frame(VARIANTS[variant_name], folder)
    shutil.copytree(parts / vae_of(variant_name).name, folder / "vae")
    shutil.copytree(parts / "text_encoder", folder / "text_encoder")
    for expert in (parts / variant_name).iterdir():
        shutil.copytree(expert, folder / expert.name)


@contextmanager
def whole(parts: Path) -> Iterator[Path]:
    """A folder, while it lasts, with a model for each variant whose experts are there, and all else as it is."""
    with TemporaryDirectory(prefix="wan22-trained-") as made:
        folder = Path(made)
        for part in parts.iterdir():
            if part.name in TINY_VARIANTS and not (part / "model_index.json").exists():
                make(part.name, folder / part.name, parts)
            else:
                (folder / part.name).symlink_to(part.absolute())
        yield folder


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m wan22_testing.trained", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="where each variant gets a folder")
    parser.add_argument("variants", nargs="+", choices=TINY_VARIANTS, metavar="VARIANT")
    parser.add_argument("--parts", type=Path, default=FOLDER, help="of a training; the kept ones by default")
    given = parser.parse_args()
    for name in given.variants:
        if (given.out / name).exists():
            parser.error(f"{given.out / name} exists already: remove it, or give another folder")
        make(name, given.out / name, given.parts)


if __name__ == "__main__":
    main()
