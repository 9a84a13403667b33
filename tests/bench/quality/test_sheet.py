from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from wan22_bench.quality.sheet import Shot, chosen, draw, write
from wan22_testing.shapes.world import Group

RED = frozenset({Group(1, "red", "circle", "right")})
VIDEO = torch.linspace(-1, 1, 17).view(1, 17, 1, 1).expand(3, 17, 64, 64)
"""From black to white."""


def shot(prompt: str = "a red circle moves right") -> Shot:
    return Shot.of(prompt, VIDEO, RED, RED)


@pytest.mark.parametrize(
    ("have", "taken"),
    [((200,), (16,)), ((200, 200, 200), (6, 5, 5)), ((2, 200), (2, 14)), ((3, 1), (3, 1)), ((), ())],
)
def test_all_rows_have_their_share_of_the_sheet(have: tuple[int, ...], taken: tuple[int, ...]) -> None:
    shots = {f"row{number}": [shot(f"prompt {index}") for index in range(count)] for number, count in enumerate(have)}
    found = [name for name, _ in chosen(shots)]
    assert found == [f"row{number}" for number, count in enumerate(taken) for _ in range(count)]


def test_the_sheet_shows_five_frames_from_the_first_to_the_last_and_text_beside_them() -> None:
    sheet = draw([("t2v", shot()), ("t2v", shot("two blue rings go upwards, and so on " * 4))])
    assert sheet.height == 2 * 136 + 8
    levels = [sheet.getpixel((8 + column * 136 + 64, 72))[0] for column in range(5)]  # type: ignore[index]  # of RGB
    assert levels == [0, 64, 128, 191, 255]
    texts = [sheet.crop((700, top, sheet.width, top + 128)).convert("L").histogram() for top in (8, 144)]
    dark = [sum(histogram[:128]) for histogram in texts]
    assert 100 < dark[0] < dark[1]


def test_a_wrong_answer_is_told() -> None:
    assert shot().verdict == "read right"
    assert Shot.of("p", VIDEO, RED, frozenset()).verdict == "read: nothing"
    two = frozenset({Group(2, "blue", "ring", "up")})
    assert Shot.of("p", VIDEO, RED, two).verdict == "read: 2 blue ring up"


def test_it_is_written_as_png(tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    write({"t2v": [shot()] * 20}, file)
    with Image.open(file) as opened:
        assert opened.format == "PNG"
        assert opened.height == 16 * 136 + 8
