"""Webhooks from the end of a generation to a receiver, which checks them by the convention's own library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError

from wan22.client import Client
from wan22.errors import FailedPrecondition, InvalidRequest, Reason, Unavailable
from wan22.v1.generation_pb2 import Generation
from wan22_gateway import lifecycle
from wan22_gateway.store import webhooks
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import deliveries as delivery_table
from wan22_gateway.webhooks.addresses import parse_networks
from wan22_gateway.webhooks.dispatcher import WebhookDispatcher, retry_after
from wan22_gateway.webhooks.poster import Poster
from wan22_gateway.webhooks.signature import new_secret, signed_headers
from wan22_testing.authority import Authority
from wan22_testing.wan22_command import Wan22Command

from . import rows
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with, until
from .webhook_receiver import Receiver, receiving

HERE = "127.0.0.0/8"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "pki"
    folder.mkdir()
    return Authority(folder)


@asynccontextmanager
async def gateway(folder: Path, authority: Authority, **changed: Any) -> AsyncIterator[tuple[Client, Wan22Command]]:
    settings = {"webhook_private_networks": HERE, "webhook_ca": authority.ca, **changed}
    async with gateway_with(folder, ScriptedWorkerServicer(), **settings) as client:
        yield client, Wan22Command(folder, WAN22_ENDPOINT=client.endpoint)


async def secret_of(command: Wan22Command, *flags: str) -> str:
    made = await command("admin", "webhooks", "apply", "default", *flags)
    assert made.exit_code == 0, made.err
    return made.out.strip()


async def deliveries(command: Wan22Command, *flags: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await command("webhooks", "list", "--json", *flags)).out.splitlines()]


async def until_state(command: Wan22Command, state: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            (delivery,) = await deliveries(command)
            if delivery["state"] == state:
                return delivery


def url_of(receiver: Receiver) -> str:
    return f"https://localhost:{receiver.port}/hook?a=b"


async def test_a_tenant_is_told_by_a_signed_call_that_its_library_verifies_and_told_again_by_the_next_gateway(
    tmp_path: Path, authority: Authority
) -> None:
    async with receiving(authority.issue("receiver"), "503 Busy\r\nRetry-After: 0") as receiver:
        async with gateway(tmp_path, authority) as (client, command):
            secret = await secret_of(command, "--url", url_of(receiver))
            made = await client.create(variant=T2V, prompt="secret text", labels={"k": "v"})
            done = await client.wait(made.name)
            first = (await receiver.until(1))[0]
            assert secret not in (await command("admin", "webhooks", "list", "--json")).out
        body = Webhook(secret).verify(first.body, first.headers)
        assert body["type"] == "generation.succeeded"
        assert body["data"]["name"] == done.name
        assert body["data"]["labels"] == {"k": "v"}
        assert body["data"]["video"]["digest"] == done.video.digest
        assert b"secret text" not in first.body
        assert (first.path, first.headers["host"]) == ("/hook?a=b", f"localhost:{receiver.port}")
        assert len(receiver.received) == 1
        async with gateway(tmp_path, authority) as (_, command):
            second = (await receiver.until(2))[1]  # 5 s after the first
            Webhook(secret).verify(second.body, second.headers)
            assert second.headers["webhook-id"] == first.headers["webhook-id"]
            assert second.body == first.body
            with pytest.raises(WebhookVerificationError):
                Webhook(new_secret()).verify(second.body, second.headers)
            delivery = await until_state(command, "DELIVERED")
            assert delivery["name"] == f"deliveries/{first.headers['webhook-id']}"
            assert delivery["attempt_count"] == 2


async def test_a_receiver_that_is_gone_leads_to_the_dead_letters_and_a_redelivery_from_there(
    tmp_path: Path, authority: Authority
) -> None:
    async with (
        receiving(authority.issue("receiver"), "410 Gone") as receiver,
        gateway(tmp_path, authority) as (client, command),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await client.create(variant=T2V, prompt="x", webhook_url=url_of(receiver))
        assert caught.value.reason is Reason.NO_WEBHOOK
        secret = await secret_of(command)
        with pytest.raises(InvalidRequest, match="https"):
            await client.create(variant=T2V, prompt="x", webhook_url="http://localhost/")
        await client.wait((await client.create(variant=T2V, prompt="x", webhook_url=url_of(receiver))).name)
        dead = await until_state(command, "DEAD")
        assert dead["last_error"] == "The receiver answered 410."
        assert [found["name"] for found in await deliveries(command, "--state", "dead")] == [dead["name"]]
        again = await command("webhooks", "redeliver", dead["name"])
        assert again.out == f"{dead['name']} is tried again.\n"
        taken = (await receiver.until(2))[1]
        Webhook(secret).verify(taken.body, taken.headers)
        await until_state(command, "DELIVERED")


async def test_an_address_inside_is_refused_at_connect_and_says_nothing_of_it(
    tmp_path: Path, authority: Authority
) -> None:
    async with (
        receiving(authority.issue("receiver")) as receiver,
        gateway(tmp_path, authority, webhook_private_networks="") as (client, command),
    ):
        await secret_of(command, "--url", url_of(receiver))
        made = await client.create(variant=T2V, prompt="x")
        assert (await client.wait(made.name)).state == Generation.SUCCEEDED
        async with asyncio.timeout(60):
            while not (delivery := (await deliveries(command))[0]).get("last_error"):
                pass
        assert delivery["last_error"] == "The host is not a public one, and its network is not allowed."
        assert receiver.received == []


async def test_what_cannot_be_sent_delays_no_other_delivery(database: Database, authority: Authority) -> None:
    async with receiving(authority.issue("receiver")) as receiver, Poster(parse_networks(HERE), authority.ca) as poster:

        def prepare(tx: Transaction) -> None:
            webhooks.apply(tx, "default", url=url_of(receiver), include_prompt=False, secret=new_secret(), rotate=False)
            for _ in range(2):
                lifecycle.request_cancel(tx, rows.add_generation(tx))
            first = select(delivery_table.c.id).limit(1).scalar_subquery()
            strange = update(delivery_table).where(delivery_table.c.id == first)
            tx.execute(strange.values(url="https://[no/"))  # which check_url has never let in

        await database.write(prepare)
        work = asyncio.create_task(WebhookDispatcher(database, poster).run())
        await receiver.until(1)

        async def both_are_tried() -> bool:
            found = await database.read(webhooks.page, "default", "", 10)
            said = sorted((row.state, row.last_error) for row in found)
            fault = "The gateway failed to send it by a fault of its own; its log has more."
            return said == [("DELIVERED", ""), ("PENDING", fault)]

        async with asyncio.timeout(60):
            await until(both_are_tried)
        assert not work.done()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_redirects_are_not_followed_and_certificates_must_be_trusted(
    tmp_path: Path, authority: Authority
) -> None:
    tls = authority.issue("receiver")
    async with receiving(tls) as second, receiving(tls, f"307 Moved\r\nLocation: {url_of(second)}", "") as first:
        async with Poster(parse_networks(HERE), authority.ca) as poster:
            assert (await poster.post(url_of(first), {}, b"{}", seconds=10)).status == 307
            assert second.received == []
            with pytest.raises(Unavailable, match="no connection"):
                await poster.post(url_of(first), {}, b"{}", seconds=10)
        async with Poster(parse_networks(HERE)) as poster:
            with pytest.raises(Unavailable, match="certificate is not trusted"):
                await poster.post(url_of(second), {}, b"{}", seconds=10)
        assert second.received == []


async def test_an_answer_is_read_so_far_and_no_further_and_a_silent_receiver_is_left(authority: Authority) -> None:
    long = receiving(authority.issue("receiver"), body=b"x" * 100_000)
    async with long as receiver, Poster(parse_networks(HERE), authority.ca) as poster:
        assert (await poster.post(url_of(receiver), {}, b"{}", seconds=10, most=1000)).body == b"x" * 1000

    left = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with silent, Poster(parse_networks(HERE), authority.ca) as poster:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match=r"within 0.2 s"):
            await poster.post(f"https://localhost:{port}/", {}, b"{}", seconds=0.2)
        await asyncio.wait_for(left.wait(), 30)


def test_signatures_are_those_of_the_convention() -> None:
    secret, other, now = new_secret(), new_secret(), datetime.now(UTC)
    headers = signed_headers("msg_1", int(now.timestamp()), "ä".encode(), (secret, other))
    for known in (secret, other):
        Webhook(known).verify("ä", headers, json_parse=False)
    assert headers["webhook-signature"].split()[0] == Webhook(secret).sign("msg_1", now, "ä")


def test_retry_after_is_read_in_both_forms() -> None:
    assert retry_after("120") == 120.0
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert later is not None
    assert 50 < later <= 60
    assert retry_after("soon") is None
    assert retry_after("Mon, 01 Jan 2024 00:00:00 +99999999999999999999") is None
    assert retry_after("") is None
