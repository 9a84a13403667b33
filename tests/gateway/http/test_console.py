"""The console in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect
from tests.gateway.scripted_worker import T2V, Place, ScriptedWorkerServicer, place_at, place_with, serve

from wan22_gateway.identity.keys import new_secret
from wan22_testing.service_process import free_port

from .paced_worker import PacedWorkerServicer

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH: install Debian's package chromium"),
]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
BLOB = re.compile(r"^blob:")
expect.set_options(timeout=60_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page on which nothing may go wrong: no exception, and nothing that its own policy forbids."""
    context = await browser.new_context()
    opened = await context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(error.message))
    opened.on("console", lambda said: faults.append(said.text) if "Policy" in said.text else None)
    yield opened
    await context.close()
    assert not faults


async def test_a_video_is_asked_for_followed_and_shown(page: Page, place: Place, worker: PacedWorkerServicer) -> None:
    worker.go.clear()
    await page.goto(place.http)
    await page.get_by_label("Prompt").fill("A <b>red</b> kite")
    await page.get_by_label("Frames").fill("5")
    await page.get_by_label("Seed").fill("7")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#state")).to_contain_text("denoising, step 2 of 4")
    await expect(page.locator("#preview")).to_be_visible()
    assert await page.locator("#preview").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    await expect(page.locator("#newest li").first).to_contain_text("in progress")
    worker.go.set()
    await expect(page.locator("#state")).to_contain_text("succeeded")
    await expect(page.locator("#state")).to_contain_text("5 frames, seed 7")
    await expect(page.locator("#video")).to_have_attribute("src", BLOB)
    await expect(page.get_by_role("link", name="Download")).to_be_visible()
    await expect(page.locator("#newest li").first).to_contain_text("completed · ti2v-5b-tiny · A <b>red</b> kite")


async def test_what_is_refused_is_said_where_it_was_asked(page: Page, place: Place) -> None:
    await page.goto(place.http)
    await page.get_by_label("Prompt").fill("word " * 600)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#refusal")).to_contain_text("512")
    await expect(page.locator("#shown")).to_be_hidden()


async def test_a_generation_is_cancelled(page: Page, place: Place, worker: PacedWorkerServicer) -> None:
    worker.go.clear()
    await page.goto(place.http)
    await page.get_by_label("Prompt").fill("A kite that is not to be")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#state")).to_contain_text("denoising")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#state")).to_contain_text("cancelled")
    worker.go.set()


async def test_a_closed_page_cancels_nothing_and_another_one_finds_it(
    browser: Browser, page: Page, place: Place, worker: PacedWorkerServicer
) -> None:
    worker.go.clear()
    first = await browser.new_page()
    await first.goto(place.http)
    await first.get_by_label("Prompt").fill("A kite that goes on")
    await first.get_by_role("button", name="Generate").click()
    await expect(first.locator("#state")).to_contain_text("denoising")
    await first.close()
    await page.goto(place.http)
    await page.get_by_role("button", name="A kite that goes on").click()
    worker.go.set()
    await expect(page.locator("#state")).to_contain_text("succeeded")


async def test_a_restart_of_the_gateway_ends_nothing(page: Page, tmp_path: Path) -> None:
    worker, port = PacedWorkerServicer(), free_port()
    worker.go.clear()
    async with serve(worker) as address:
        async with place_at(tmp_path, address, http_port=port) as place:
            await page.goto(place.http)
            await page.get_by_label("Prompt").fill("A kite")
            await page.get_by_role("button", name="Generate").click()
            await expect(page.locator("#state")).to_contain_text("denoising")
        await expect(page.locator("#state")).to_contain_text("away")
        worker.go.set()
        async with place_at(tmp_path, address, http_port=port):
            await expect(page.locator("#state")).to_contain_text("succeeded")


async def test_where_a_key_is_needed_it_is_asked_for_and_kept_for_the_tab(page: Page, tmp_path: Path) -> None:
    key = new_secret()
    keys = [{"tenant": "a", "roles": ["user", "operator"], "key": key}]
    (tmp_path / "tenants.json").write_text(json.dumps({"tenants": [{"name": "a"}], "keys": keys}))
    settings: dict[str, Any] = {"auth": "on", "tenants_file": tmp_path / "tenants.json"}
    async with place_with(tmp_path, ScriptedWorkerServicer(), api_key=key, **settings) as place:
        await page.goto(place.http)
        await expect(page.locator("#refusal")).to_contain_text("credentials")
        await page.get_by_label("API key").fill(key)
        await page.get_by_label("API key").blur()
        await expect(page.locator("#variant")).to_have_value(T2V)
        await expect(page.locator("#refusal")).to_be_empty()
        await page.get_by_label("Prompt").fill("A kite")
        await page.get_by_role("button", name="Generate").click()
        await expect(page.locator("#state")).to_contain_text("succeeded")
        await page.reload()
        await expect(page.locator("#newest li").first).to_contain_text("A kite")
