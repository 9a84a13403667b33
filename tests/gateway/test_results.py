from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from wan22.errors import DataLoss, FailedPrecondition, Reason, ResourceExhausted, Unavailable
from wan22_gateway.result_places import PART_BYTES, WHOLE_BYTES, open_place
from wan22_gateway.results import Results
from wan22_testing.cutting_proxy import CuttingProxy
from wan22_testing.s3_server import BUCKET, S3Server

KEY = "videos/one/1-1.mp4"
DATA = bytes(range(256)) * 40_000


@pytest.fixture
def results(location: str) -> Results:
    return Results(open_place(location))


async def read(results: Results, offset: int = 0, size: int = len(DATA)) -> list[bytes]:
    return [chunk async for chunk in results.read(KEY, size, offset)]


async def test_an_object_is_read_from_an_offset_in_chunks_of_a_mebibyte(results: Results) -> None:
    await results.check()
    await results.put(KEY, DATA)
    assert await results.size(KEY) == len(DATA)
    chunks = await read(results, 5)
    assert [len(chunk) for chunk in chunks] == [1 << 20] * 9 + [len(DATA) - 5 - (9 << 20)]
    assert b"".join(chunks) == DATA[5:]
    assert await read(results, len(DATA)) == []


async def test_a_file_of_several_parts_arrives_whole(results: Results, tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(DATA * 4)
    await results.put(KEY, spooled)
    assert b"".join(await read(results, size=4 * len(DATA))) == DATA * 4


@pytest.mark.parametrize("length", [0, 1 << 20, len(DATA) - 1, len(DATA) + 1])
@pytest.mark.parametrize("offset", [0, 2 << 20])
async def test_an_object_of_another_length_is_a_loss_before_its_first_byte(
    results: Results, length: int, offset: int
) -> None:
    await results.put(KEY, (DATA + b"x")[:length])
    with pytest.raises(DataLoss, match=f"has {length} bytes, not {len(DATA)}"):
        await read(results, offset)


async def test_an_object_that_is_gone_is_a_loss_and_deleting_it_is_none(results: Results, location: str) -> None:
    await results.put(KEY, DATA)
    await results.delete(KEY)
    for reading in (read(results), results.size(KEY)):
        with pytest.raises(DataLoss, match=f"{KEY} is gone from {location}"):
            await reading
    await results.delete(KEY)


async def test_deleting_the_last_object_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    results = Results(open_place(str(tmp_path / "videos")))
    await results.put(KEY, b"one")
    await results.delete(KEY)
    assert list((tmp_path / "videos").rglob("*")) == []


async def test_a_full_disk_is_named(small_disk: Path) -> None:
    results = Results(open_place(str(small_disk)))
    with pytest.raises(ResourceExhausted, match=f"The disk of {small_disk} is full"):
        await results.put(KEY, b"x" * ((4 << 20) + 1))  # of much larger ones the store removes its parts a moment later
    await results.put(KEY, b"it fits")


@pytest.fixture
def elsewhere(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, with the usual variables set."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/signed"


async def test_s3_gives_an_object_to_whoever_has_a_signed_url_and_to_nobody_else(elsewhere: str) -> None:
    results = Results(open_place(elsewhere))
    await results.put(KEY, DATA)
    url = await results.sign(KEY, 60)
    assert url is not None

    async with httpx.AsyncClient() as browser:
        answer = await browser.get(url)
        assert answer.content == DATA
        assert answer.headers["Content-Type"] == "video/mp4"
        assert (await browser.get(url, headers={"Range": "bytes=5-9"})).content == DATA[5:10]
        for refused in (url.partition("?")[0], url.replace("1-1.mp4", "1-2.mp4"), url[:-1] + chr(ord(url[-1]) ^ 1)):
            assert (await browser.get(refused)).status_code == 403


async def test_a_url_is_signed_for_the_address_by_which_clients_reach_the_store(elsewhere: str) -> None:
    results = Results(open_place(elsewhere, public_endpoint="https://videos.example.com"))
    url = await results.sign(KEY, 60)
    assert url is not None
    assert url.startswith(f"https://videos.example.com/{BUCKET}/signed/{KEY}?")


async def test_a_bucket_that_is_not_there_is_told_at_the_start_and_loses_nothing_later(elsewhere: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        results = Results(open_place(elsewhere, endpoint=f"http://127.0.0.1:{port}"))
        with pytest.raises(FailedPrecondition, match="Name a bucket that is there"):
            await results.check()
        with pytest.raises(Unavailable, match=f"{KEY} cannot be written to {elsewhere}"):
            await results.put(KEY, b"x")


UPLOAD = """
import asyncio, sys
from pathlib import Path
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results

async def upload(location, key, content):
    await Results(open_place(location)).put(key, Path(content))

asyncio.run(upload(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("size", "left"), [(WHOLE_BYTES, 0), (WHOLE_BYTES + 1, 1)])
async def test_an_upload_that_a_kill_cuts_off_leaves_nothing_unless_it_is_too_large_to_go_as_a_whole(
    elsewhere: str, s3_server: S3Server, tmp_path: Path, size: int, left: int
) -> None:
    content = tmp_path / "content"
    with content.open("wb") as file:
        file.truncate(size)
    key, before = f"videos/cut/{size}.mp4", s3_server.unfinished_uploads()
    passed = 0

    def hear(size: int) -> None:
        """Kills the sender when a part and a half of its object has passed; once, since a second kill would reap it."""
        nonlocal passed
        enough = PART_BYTES * 3 // 2
        if passed <= enough < passed + size:
            process.kill()
        passed += size

    async with CuttingProxy(int(s3_server.endpoint.rpartition(":")[2]), [], hear) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        command = [sys.executable, "-c", UPLOAD, elsewhere, key, str(content)]
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        assert await process.wait() == -signal.SIGKILL
    assert s3_server.unfinished_uploads() - before == left
    with pytest.raises(DataLoss, match="is gone"):
        await Results(open_place(elsewhere)).size(key)


async def test_a_folder_has_no_urls_of_its_own(tmp_path: Path) -> None:
    assert await Results(open_place(str(tmp_path))).sign(KEY, 60) is None


async def test_wrong_credentials_are_told_at_the_start_and_never_shown(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    results = Results(open_place(elsewhere))
    with pytest.raises(FailedPrecondition, match=r"s3://videos/signed cannot be used: .*AWS_ACCESS_KEY_ID") as caught:
        await results.check()
    assert caught.value.reason is Reason.BAD_SETTING
    with pytest.raises(Unavailable) as later:
        await results.put(KEY, DATA)
    for text in (caught.value.message, later.value.message, caplog.text):
        assert "another-secret" not in text


async def test_a_store_that_is_away_is_waited_for_and_told(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results = Results(open_place(elsewhere, endpoint="http://127.0.0.1:1"))
    await results.check()
    assert "Videos wait on their workers until it is back." in caplog.text
    for call in (results.put(KEY, b"x"), results.size(KEY), results.delete(KEY), read(results)):
        with pytest.raises(Unavailable, match=f"{KEY} in {elsewhere} cannot be reached") as caught:
            await call
        assert caught.value.retry_after is not None
