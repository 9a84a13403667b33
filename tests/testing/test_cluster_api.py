from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from wan22_testing.cancelled_calls import answering_server, cancel_everywhere
from wan22_testing.cluster.api import Api


@pytest.mark.parametrize("watched", [False, True])
async def test_a_call_that_is_cancelled_anywhere_leaves_no_connection(tmp_path: Path, watched: bool) -> None:
    """A killed node's calls are cancelled, and what they left open would be told as another test's fault."""
    async with answering_server(tmp_path) as (address, authority), asyncio.timeout(60):
        cluster = {"server": address, "certificate-authority": str(authority)}
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps({"clusters": [{"cluster": cluster}], "users": [{"user": {"token": "x"}}]}))

        async def ask(api: Api) -> object:
            return await (anext(api.watch("/b", "1")) if watched else api.get("/a"))

        assert await cancel_everywhere(lambda: Api(config), ask) > 0
