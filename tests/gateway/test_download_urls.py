from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import update

from wan22.client import Client
from wan22.errors import FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.v1.generation_pb2 import DownloadUrl, Generation
from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.identity.keys import new_secret
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database
from wan22_gateway.store.schema import generations as table
from wan22_testing.s3_server import BUCKET, S3Server

from . import rows
from .scripted_worker import T2V, VIDEO, ScriptedWorkerServicer, gateway_with, place_with
from .test_retention import HOUR, make_video


@pytest.fixture
def urls(database: Database, tmp_path: Path) -> DownloadUrls:
    made = DownloadUrls(database, Results(open_place(str(tmp_path / "videos"))))
    made.base = "https://wan22.example.com"
    return made


@pytest_asyncio.fixture
async def video(database: Database) -> str:
    await database.write(rows.add_pool)
    return await database.write(lambda tx: make_video(tx, tenant="alice"))


def parts(url: DownloadUrl) -> tuple[str, str, str]:
    """What `open` takes: the generation, the end and the signature."""
    assert url.url.startswith("https://wan22.example.com/videos/")
    split = urlsplit(url.url)
    query = parse_qs(split.query)
    return Path(split.path).stem, query["expires"][0], query["signature"][0]


def lasting(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


async def test_a_url_leads_to_its_video_for_the_time_asked_and_an_hour_at_most(
    urls: DownloadUrls, video: str, database: Database
) -> None:
    now = await database.read(lambda tx: tx.now)
    for asked, seconds in ((None, 3600.0), (lasting(3600), 3600.0), (lasting(0.5), 0.5)):
        made = await urls.create("alice", video, asked)
        assert made.expire_time.ToMicroseconds() / 1e6 - now / 1e6 == pytest.approx(seconds, abs=20)
        assert (await urls.open(*parts(made))).id == video
    for bad in (0.0, -1.0, 3600.5):
        with pytest.raises(InvalidRequest, match="valid_for is"):
            await urls.create("alice", video, lasting(bad))


async def test_a_url_is_no_longer_good_than_the_video(urls: DownloadUrls, video: str, database: Database) -> None:
    values = {"video_expire_time": (await database.read(lambda tx: tx.now)) + HOUR // 60}
    await database.write(lambda tx: tx.execute(update(table).values(values)))
    made = await urls.create("alice", video, None)
    assert made.expire_time == made.video.expire_time
    assert made.expire_time.ToMicroseconds() == values["video_expire_time"]


async def test_another_tenant_gets_no_url(urls: DownloadUrls, video: str) -> None:
    with pytest.raises(NotFound):
        await urls.create("bob", video, None)


async def test_whatever_is_changed_in_a_url_it_is_refused_in_the_same_words(
    urls: DownloadUrls, video: str, database: Database
) -> None:
    other = await database.write(lambda tx: make_video(tx, tenant="alice"))
    generation, expires, signature = parts(await urls.create("alice", video, None))
    for changed in (
        (other, expires, signature),
        ("00000000-0000-4000-8000-000000000000", expires, signature),
        (generation, str(int(expires) + 1), signature),
        (generation, expires + "0", signature),
        (generation, "9" * 30, signature),
        (generation, "-1", signature),
        (generation, "²", signature),
        (generation, "", signature),
        (generation, expires, signature[:-1]),
        (generation, expires, ("1" if signature[0] == "0" else "0") + signature[1:]),
        (generation, expires, "ü"),
        (generation, expires, ""),
    ):
        with pytest.raises(NotFound, match="This URL is not one that this gateway has signed"):
            await urls.open(*changed)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "bob"},
        {"video_digest": "sha256:" + "1" * 64},
        {"video_key": None},
        {"video_expire_time": 1},
    ],
)
async def test_a_url_is_of_one_tenants_one_video(
    urls: DownloadUrls, video: str, database: Database, change: dict[str, object]
) -> None:
    given = parts(await urls.create("alice", video, None))
    await database.write(lambda tx: tx.execute(update(table).values(change)))
    with pytest.raises(NotFound):
        await urls.open(*given)


async def test_a_url_is_refused_after_its_time_and_after_deletion(
    urls: DownloadUrls, video: str, database: Database
) -> None:
    short = parts(await urls.create("alice", video, lasting(0.05)))
    long = parts(await urls.create("alice", video, None))
    await asyncio.sleep(0.06)  # the point of the test
    with pytest.raises(NotFound):
        await urls.open(*short)
    assert (await urls.open(*long)).id == video
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "alice", video)))
    with pytest.raises(NotFound):
        await urls.open(*long)


async def test_without_http_a_folder_has_no_urls(urls: DownloadUrls, video: str) -> None:
    urls.base = ""
    with pytest.raises(FailedPrecondition, match="Use DownloadVideo") as caught:
        await urls.create("alice", video, None)
    assert caught.value.reason is Reason.BAD_SETTING


@pytest_asyncio.fixture
async def on_s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    location = f"s3://{BUCKET}/{tmp_path.name}"
    async with gateway_with(tmp_path, ScriptedWorkerServicer(), results=location) as client:
        yield client


async def test_on_s3_the_url_is_the_stores_own(on_s3: Client, s3_server: S3Server) -> None:
    done = await on_s3.wait((await on_s3.create(variant=T2V, prompt="p")).name)
    assert done.state == Generation.SUCCEEDED
    made = await on_s3.download_url(done.name, valid_for=60)
    assert made.url.startswith(s3_server.endpoint)
    assert "X-Amz-Expires=59" in made.url or "X-Amz-Expires=60" in made.url
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(made.url)).content == VIDEO


async def test_a_folders_video_is_fetched_without_credentials_by_its_url_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    key, operator = new_secret(), new_secret()
    keys = [
        {"tenant": "alice", "roles": ["user"], "key": key},
        {"tenant": "alice", "roles": ["operator"], "key": operator},
    ]
    (tmp_path / "tenants.json").write_text(json.dumps({"tenants": [{"name": "alice"}], "keys": keys}))
    terms: dict[str, Any] = {"auth": "on", "tenants_file": tmp_path / "tenants.json", "api_key": operator}
    async with (
        asyncio.timeout(60),
        place_with(tmp_path, ScriptedWorkerServicer(), **terms) as place,
        Client(place.client.endpoint, key) as alice,
        httpx.AsyncClient() as browser,
    ):
        done = await alice.wait((await alice.create(variant=T2V, prompt="p")).name)
        made = await alice.download_url(done.name)
        assert made.url.startswith(f"http://localhost:{place.serving.http_port}/videos/")
        whole = await browser.get(made.url)
        assert (whole.status_code, whole.content) == (200, VIDEO)
        assert whole.headers["Content-Type"] == "video/mp4"
        part = await browser.get(made.url, headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, VIDEO[100:200])
        head = await browser.head(made.url)
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(VIDEO)), b"")
        url, _, query = made.url.partition("?")
        for refused, status in (
            (f"{url}?{query}0", 404),
            (f"{url[:-5]}{'0' if url[-5] != '0' else '1'}.mp4?{query}", 404),
            (url, 400),
        ):
            assert (await browser.get(refused)).status_code == status
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("wan22")]
        assert any(f"GET /videos/{done.name.removeprefix('generations/')}.mp4 200" in line for line in ours)
        assert not any(parse_qs(query)["signature"][0] in line for line in ours)
        browser.headers["Authorization"] = f"Bearer {key}"
        again = (await browser.post(f"{place.http}/{done.name}/download_url", json={"valid_for": "60s"})).json()
        del browser.headers["Authorization"]
        assert (await browser.get(again["url"])).content == VIDEO
        assert again["video"]["digest"] == done.video.digest
        await alice.delete(done.name)
        gone = await browser.get(made.url)
        assert gone.status_code == 404
        assert gone.json()["error"]["message"].startswith("This URL is not one")


async def test_a_public_url_is_what_urls_begin_with(tmp_path: Path) -> None:
    terms = {"public_url": "https://wan22.example.com/"}
    async with asyncio.timeout(60), gateway_with(tmp_path, ScriptedWorkerServicer(), **terms) as client:
        done = await client.wait((await client.create(variant=T2V, prompt="p")).name)
        made = await client.download_url(done.name, valid_for=60)
        assert made.url.startswith("https://wan22.example.com/videos/")
