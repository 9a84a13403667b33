"""Calls that are given up."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from wan22.http_client import HttpClient
from wan22_testing.cancelled_calls import STEPS, answering_server, cancel_everywhere


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
