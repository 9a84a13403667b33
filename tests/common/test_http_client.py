"""Calls that are given up."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from wan22.http_client import HttpClient
from wan22_testing.cancelled_calls import STEPS, answering_server, cancel_everywhere, open_files, until_open


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_is_cancelled_anywhere_ends_and_leaves_no_connection(tmp_path: Path, streamed: bool) -> None:
    async with answering_server(tmp_path) as (address, authority), asyncio.timeout(60):
        trusted = ssl.create_default_context(cafile=authority)

        async def ask(client: HttpClient) -> None:
            if streamed:
                async with client.stream("GET", address) as answer:
                    assert await answer.aread() == b"{}"
            else:
                assert (await client.get(address)).content == b"{}"

        assert 10 < await cancel_everywhere(lambda: HttpClient(verify=trusted), ask) <= STEPS


async def test_a_call_that_is_cancelled_while_idle_connections_are_closed_leaves_none_of_them(tmp_path: Path) -> None:
    async with answering_server(tmp_path) as (address, authority), asyncio.timeout(60):
        trusted = ssl.create_default_context(cafile=authority)
        short = httpx.Limits(keepalive_expiry=0.01)
        for steps in range(20):
            before = open_files()
            async with HttpClient(verify=trusted, limits=short) as client:
                await asyncio.gather(*(client.get(address) for _ in range(5)))
                await asyncio.sleep(0.05)  # they are to be closed now, before the next call
                asking = asyncio.create_task(client.get(address))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking
            await until_open(before)
