from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from standardwebhooks import Webhook

from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import FailedPrecondition, Reason
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2_grpc import GenerationServiceStub
from wan22_gateway.webhooks.signature import new_secret
from wan22_testing.authority import Authority

from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with
from .webhook_receiver import Receiver, receiving

SECRET = new_secret()


@asynccontextmanager
async def hooked(
    folder: Path, answer: object, *statuses: str, **changed: Any
) -> AsyncIterator[tuple[Client, Receiver]]:
    (folder / "pki").mkdir()
    authority = Authority(folder / "pki")
    (folder / "secret").write_text(SECRET)
    async with receiving(authority.issue("hook"), *statuses, body=json.dumps(answer).encode()) as hook:
        url = f"https://localhost:{hook.port}/check"
        terms = {
            "prompt_hook": url,
            "prompt_hook_secret_file": folder / "secret",
            "webhook_ca": authority.ca,
            **changed,
        }
        async with gateway_with(folder, ScriptedWorkerServicer(), **terms) as client:
            yield client, hook


async def test_a_hook_extends_a_prompt_once_for_each_request(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"action": "replace", "prompt": "A cat, at dusk"}) as (client, hook):
        made = await client.create(variant=T2V, prompt="A cat", request_id="r")
        assert made.parameters.prompt == "A cat, at dusk"
        assert (made.asked_texts.prompt, made.asked_texts.HasField("negative_prompt")) == ("A cat", False)
        assert (await client.create(variant=T2V, prompt="A cat", request_id="r")).name == made.name
        (asked,) = hook.received
        data = Webhook(SECRET).verify(asked.body, asked.headers)["data"]
        assert (data["tenant"], data["prompt"], data["negative_prompt"]) == ("tenants/default", "A cat", None)


async def test_the_texts_asked_for_are_kept_beside_those_made_and_go_with_their_generation(tmp_path: Path) -> None:
    answer = {"action": "replace", "prompt": "A cat, at dusk", "negative_prompt": "dogs"}
    async with hooked(tmp_path, answer) as (client, _):
        made = await client.create(variant=T2V, prompt="A cat on a wall", negative_prompt="")
        done = await client.wait(made.name)
        assert (done.parameters.prompt, done.parameters.negative_prompt) == ("A cat, at dusk", "dogs")
        assert done.asked_texts == generation_pb2.AskedTexts(prompt="A cat on a wall", negative_prompt="")
        (listed,) = [found async for found in client.list()]
        assert listed.asked_texts == done.asked_texts
        store = tmp_path / "gateway" / "store.sqlite"
        written = [Path(f"{store}{suffix}") for suffix in ("", "-wal")]
        assert any(b"A cat on a wall" in file.read_bytes() for file in written)
        await client.delete(made.name)
        async with asyncio.timeout(60):
            while any(b"A cat on a wall" in file.read_bytes() for file in written):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the log is emptied a moment later


async def test_a_hook_that_allows_leaves_no_texts_beside(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"action": "allow"}) as (client, _):
        assert not (await client.create(variant=T2V, prompt="A cat")).HasField("asked_texts")


async def test_a_hook_refuses_with_its_own_words_and_nothing_is_queued(tmp_path: Path) -> None:
    async with hooked(tmp_path, {"action": "refuse", "message": "No cats."}) as (client, _):
        with pytest.raises(FailedPrecondition, match="No cats") as caught:
            await client.create(variant=T2V, prompt="A cat")
        assert caught.value.reason is Reason.PROMPT_REFUSED
        assert [found async for found in client.list()] == []


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize(
    ("answer", "secret"),
    [pytest.param("what", SECRET, id="unknown"), ("allow", "é"), ("allow", "whsec_x"), ("allow", None)],
)
async def test_a_hook_that_fails_refuses_all_or_lets_all_pass_as_the_setting_says(
    tmp_path: Path, fail_open: bool, answer: str, secret: str | None
) -> None:
    request = generation_pb2.CreateGenerationRequest()
    request.generation.variant, request.generation.parameters.prompt = T2V, "A cat"
    failing = hooked(tmp_path, {"action": answer}, prompt_hook_open=fail_open)
    async with failing as (client, _), open_channel(client.endpoint) as channel:
        if secret is None:
            (tmp_path / "secret").unlink()
        else:
            (tmp_path / "secret").write_text(secret)
        create = GenerationServiceStub(channel).CreateGeneration
        if fail_open:
            assert (await create(request)).parameters.prompt == "A cat"
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="cannot be checked") as caught:
                await create(request)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
