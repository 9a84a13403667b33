from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.errors import InvalidRequest, Reason
from wan22.model_client import ModelClient
from wan22.pack.writer import pack_file
from wan22_registry.model_files import MAX_JSON_BYTES, check_content, check_path

from . import model_folder
from .model_folder import safetensors

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    "path",
    [
        *("/a.json", "../a.json", "a/../b.json", "a//b.json", "./a.json", "a\\b.json", "a\n.json", "a.json/"),
        *("", "x" * 300, "model.bin", "model.pt", "model.pth", "model.ckpt", "a.py", "json", "a.pack", "a.json.pack"),
    ],
)
def test_paths_that_leave_the_folder_or_are_no_weights_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_path(path)
    assert caught.value.reason is Reason.FORBIDDEN_FILE


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "header"),
        (b"\x80\x04\x95" + b"pickle" * 10, "header"),
        (safetensors(b"{", b""), "not JSON"),
        (safetensors([1], b""), "no JSON object"),
        (safetensors({"w": ENTRY}, b"\0" * 23), "end at 24"),
        (safetensors({"w": ENTRY}, b"\0" * 25), "end at 24"),
        (safetensors({"w": {**ENTRY, "shape": [2, 2]}}, b"\0" * 24), "needs 16"),
        (safetensors({"w": {**ENTRY, "dtype": "F7"}}, b"\0" * 24), "wrong"),
        (safetensors({"w": {**ENTRY, "shape": [-2, -3]}}, b"\0" * 24), "shape"),
        (safetensors({"w": {**ENTRY, "shape": [True, 6]}}, b"\0" * 24), "shape"),
        (safetensors({"w": ENTRY, "v": ENTRY}, b"\0" * 24), "one before it ends"),
        (safetensors({"w": {**ENTRY, "data_offsets": [24, 0]}}, b"\0" * 24), "offsets"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "said to have"),
        (b"\2\0\0\0{}", "6 bytes"),
        (safetensors(b" {}"), "does not begin with {"),
        (safetensors("{}".encode("utf-16")), "does not begin with {"),
        (safetensors(b'{"\xff": 1}'), "not JSON"),
        (safetensors(b"{" * 100_000), "not JSON"),
        (safetensors(b'{"w": {}, "w": {}}'), "a name twice"),
        (safetensors({"__metadata__": {"format": 1}}), "__metadata__"),
        (safetensors({"__metadata__": []}), "__metadata__"),
        (safetensors({"w": {**ENTRY, "shape": [1] * 65}}, b"\0" * 24), "shape"),
        (safetensors({"w": {**ENTRY, "shape": [1 << 63, 0]}}, b"\0" * 24), "shape"),
        (safetensors({"w": {**ENTRY, "data_offsets": [0, 24, 48]}}, b"\0" * 24), "wrong"),
        (safetensors({"w": {**ENTRY, "dtype": ["F32"]}}, b"\0" * 24), "wrong"),
        (safetensors({"w": "F32"}, b"\0" * 24), "wrong"),
    ],
)
def test_safetensors_whose_header_lies_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=why):
        check_content("w.safetensors", path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", "{}".encode("utf-16"), b"[" * 100_000, b"1" * 5000, b"{} {}"])
def test_json_that_does_not_parse_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "blob"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"File 'c\.json' is refused: it is not JSON"):
        check_content("c.json", path)


def test_json_beyond_its_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(InvalidRequest, match="67108865 bytes of JSON, at most 67108864"):
        check_content("c.json", path)


def test_what_a_file_says_of_itself_makes_no_long_error(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(safetensors({"w" * 100_000: {**ENTRY, "shape": [1] * 100_000}}, b"\0" * 24))
    with pytest.raises(InvalidRequest) as caught:
        check_content("w.safetensors", path)
    assert len(caught.value.message) < 1000
    with pytest.raises(InvalidRequest) as caught:
        check_path("x" * 100_000)
    assert len(caught.value.message) < 1000


@pytest.fixture
def pack(tmp_path: Path) -> bytes:
    """Of a file with one tensor of 24 bytes; two extents, or one."""
    (tmp_path / "w.safetensors").write_bytes(safetensors({"w": ENTRY}, b"\0" * 24))
    pack_file(tmp_path / "w.safetensors", tmp_path / "pack", lambda _: None)
    return (tmp_path / "pack").read_bytes()


def test_a_pack_is_taken_and_a_damaged_one_is_refused(tmp_path: Path, pack: bytes) -> None:
    path = tmp_path / "blob"
    path.write_bytes(pack)
    check_content("w.safetensors.pack", path)
    for content, why in [
        (pack[:-1], "header says"),
        (b"PK" + pack[2:], "does not begin with a pack's header"),
        (pack[:64] + b"\1" + pack[65:], "do not have the digest that stands behind them"),
        (pack[:4096] + b"\1" + pack[4097:], "the extent at 4096 .* has digest"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=why) as caught:
            check_content("w.safetensors.pack", path)
        assert caught.value.reason is Reason.FORBIDDEN_FILE


def test_a_true_header_is_taken_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "w": ENTRY}, b"\0" * 24))
    check_content("w.safetensors", path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {"dtype": JSON | st.sampled_from(["F32", "BF16"]), "shape": JSON, "data_offsets": JSON | st.lists(st.integers())}
)


@given(content=st.binary(max_size=200) | st.builds(safetensors, JSON | st.dictionaries(st.text(), ENTRIES | JSON)))
def test_any_header_is_taken_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    for name in ("w.safetensors", "w.safetensors.pack", "c.json"):
        try:
            check_content(name, path)
        except InvalidRequest as error:
            assert error.reason is Reason.FORBIDDEN_FILE  # noqa: PT017  # taking it is right too


async def test_a_folder_with_a_pickle_is_refused_before_anything_is_sent(client: ModelClient, tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "m")
    (folder / "vae" / "model.pth").write_bytes(b"\x80\x04")
    with pytest.raises(InvalidRequest, match=r"model\.pth") as caught:
        await client.push_folder(folder, model="m", variant="t2v-a14b-tiny", tags=[])
    assert caught.value.reason is Reason.FORBIDDEN_FILE
    assert await client.list_models() == []
