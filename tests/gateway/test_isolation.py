"""What one tenant has, another neither sees nor touches: every RPC of the gateway, over a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from io import BytesIO
from pkgutil import iter_modules
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wan22 import keda, v1
from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import Reason
from wan22.v1 import admin_pb2, generation_pb2, pool_pb2, webhook_pb2
from wan22.v1.generation_pb2 import Generation
from wan22_gateway import gateway
from wan22_gateway.identity.keys import new_secret

from .any_rpc import METHODS, NO_TENANTS, SERVICES, call, code_of, message_class, rpc
from .scripted_worker import T2V, ScriptedWorkerServicer, place_with

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALICE, BOB, OPERATOR, ADMIN = (new_secret() for _ in range(4))
WRONG = {
    "wan22.v1.GenerationService": OPERATOR,
    "wan22.v1.PoolService": ALICE,
    "wan22.v1.AdminService": OPERATOR,
    "externalscaler.ExternalScaler": ALICE,
    "wan22.v1.WebhookService": OPERATOR,
}
"""A key that lacks the role, by service."""
PROMPT = "the secret of alice"


class Place:
    """A gateway where alice has a finished and a waiting generation and an image; bob has nothing."""

    def __init__(
        self,
        target: str,
        http: str,
        done: Generation,
        waiting: Generation,
        media: str,
        page_token: str,
        delivery: str,
    ) -> None:
        self.target = target
        self.http = http
        self.done = done
        self.waiting = waiting
        self.media = media
        self.page_token = page_token
        self.delivery = delivery


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("isolation")
    tenants = {
        "tenants": [{"name": "alice"}, {"name": "bob", "max_queued": 7}],
        "keys": [
            {"tenant": "alice", "roles": ["user"], "key": ALICE},
            {"tenant": "bob", "roles": ["user"], "key": BOB},
            {"tenant": "bob", "roles": ["operator"], "key": OPERATOR},
            {"tenant": "bob", "roles": ["admin"], "key": ADMIN},
        ],
    }
    (folder / "tenants.json").write_text(json.dumps(tenants))
    terms: dict[str, Any] = {"auth": "on", "tenants_file": folder / "tenants.json", "reflection": True}
    worker = ScriptedWorkerServicer()
    async with (
        place_with(folder, worker, api_key=OPERATOR, **terms) as served,
        Client(served.client.endpoint, ALICE) as alice,
    ):
        webhook = webhook_pb2.Webhook(tenant="tenants/alice", url="https://alice.test/hook")  # which nobody answers
        await rpc(served.client.endpoint, "ApplyWebhook", admin_pb2.ApplyWebhookRequest(webhook=webhook), ADMIN)
        made = await alice.create(variant=T2V, prompt=PROMPT, request_id="same", labels={"k": "alice"})
        done = await alice.wait(made.name)
        assert done.state == Generation.SUCCEEDED
        metadata = [("authorization", f"Bearer {OPERATOR}")]
        async with open_channel(served.client.endpoint) as channel:
            drain = pool_pb2.DrainWorkerRequest(name="workers/w1")
            drain.lease.seconds = 3600
            call = channel.unary_unary(
                "/wan22.v1.PoolService/DrainWorker",
                pool_pb2.DrainWorkerRequest.SerializeToString,
                pool_pb2.PoolWorker.FromString,
            )
            async with asyncio.timeout(60):
                while True:
                    try:
                        await call(drain, metadata=metadata)
                    except grpc.aio.AioRpcError:  # until the release has come through
                        await asyncio.sleep(0.05)
                    else:
                        break
            waiting = await alice.create(variant=T2V, prompt=PROMPT)
            picture = BytesIO()
            Image.new("RGB", (64, 64), (1, 2, 3)).save(picture, "PNG")
            media = (await alice.upload_media(picture.getvalue())).name
            listing = channel.unary_unary(
                "/wan22.v1.GenerationService/ListGenerations",
                generation_pb2.ListGenerationsRequest.SerializeToString,
                generation_pb2.ListGenerationsResponse.FromString,
            )
            request = generation_pb2.ListGenerationsRequest(page_size=1)
            page = await listing(request, metadata=[("authorization", f"Bearer {ALICE}")])
        async with asyncio.timeout(60):
            while True:
                (shown,) = await rpc(
                    served.client.endpoint, "ListDeliveries", webhook_pb2.ListDeliveriesRequest(), ALICE
                )
                assert isinstance(shown, webhook_pb2.ListDeliveriesResponse)
                if shown.deliveries:
                    break
        (delivery,) = [found.name for found in shown.deliveries]
        yield Place(served.client.endpoint, served.http, done, waiting, media, page.next_page_token, delivery)


def names(place: Place) -> list[str]:
    return [place.done.name, place.waiting.name]


Names = Callable[[str], Message]
BY_NAME: dict[str, Names] = {
    "GetGeneration": lambda name: generation_pb2.GetGenerationRequest(name=name),
    "WatchGeneration": lambda name: generation_pb2.WatchGenerationRequest(name=name),
    "CancelGeneration": lambda name: generation_pb2.CancelGenerationRequest(name=name),
    "DeleteGeneration": lambda name: generation_pb2.DeleteGenerationRequest(name=name, force=True),
    "DownloadVideo": lambda name: generation_pb2.DownloadVideoRequest(name=name),
    "CreateDownloadUrl": lambda name: generation_pb2.CreateDownloadUrlRequest(name=name),
    "GetRecipe": lambda name: generation_pb2.GetRecipeRequest(name=name),
    "Redeliver": lambda name: webhook_pb2.RedeliverRequest(name=name),
}
"""RPCs that name a generation or a delivery: another tenant's is NOT_FOUND, as one that never was."""
WITHOUT_NAME = {
    "CreateGeneration",
    "EstimateGeneration",
    "ListGenerations",
    "UploadMedia",
    "ListVariants",
    "GetQuota",
    "ListUsage",
    "GetWebhook",
    "ListDeliveries",
}
"""The others; each has a test below."""
CLOSED_ROUTES = [
    ("GET", "/models"),
    ("POST", "/generate"),
    ("POST", "/media"),
    ("GET", "/generations/{generation}"),
    ("DELETE", "/generations/{generation}"),
    ("POST", "/generations/{generation}/cancel"),
    ("GET", "/generations/{generation}/events"),
    ("GET", "/generations/{generation}/video"),
    ("GET", "/generations/{generation}/recipe"),
    ("POST", "/generations/{generation}/download_url"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", "/v1/videos/{generation}"),
    ("DELETE", "/v1/videos/{generation}"),
    ("GET", "/v1/videos/{generation}/content"),
    ("GET", "/metrics"),
]
OPEN_ROUTES = [
    *(("GET", path) for path in ("/", "/console.css", "/console.js", "/health", "/ready", "/openapi.json")),
    ("GET", "/videos/{generation}.mp4"),
]
"""The last one takes a signature in its query: test_signed_video.py."""
NAMED_ROUTES = [route for route in CLOSED_ROUTES if "{" in route[1]]
NEVER = "00000000-0000-4000-8000-000000000000"


async def test_the_tables_have_every_service_of_the_gateway_and_every_rpc_that_users_may_call() -> None:
    assert {service.full_name for service in SERVICES} == set(gateway.SERVICES)
    assert {method.name for service, method in METHODS if service not in NO_TENANTS} == BY_NAME.keys() | WITHOUT_NAME


async def test_no_service_of_ours_is_served_that_the_tables_have_not(place: Place) -> None:
    names = [f"{package.__name__}.{found.name}" for package in (v1, keda) for found in iter_modules(package.__path__)]
    modules = [import_module(name) for name in names if name.endswith("_pb2")]
    every = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert {service.full_name for service in every} > set(gateway.SERVICES)
    for service in every:
        method = service.methods[0]
        code, _ = await code_of(place.target, service.full_name, method, message_class(method.input_type)(), None)
        assert code == ("UNAUTHENTICATED" if service.full_name in gateway.SERVICES else "UNIMPLEMENTED")


@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda value: getattr(value, "name", value))
async def test_no_rpc_is_open(place: Place, service: str, method: Any) -> None:
    request = message_class(method.input_type)()
    assert await code_of(place.target, service, method, request, None) == ("UNAUTHENTICATED", Reason.NO_CREDENTIALS)
    for bad in ("nonsense", new_secret(), ALICE[:-1]):
        answer = await code_of(place.target, service, method, request, bad)
        assert answer == ("UNAUTHENTICATED", Reason.BAD_CREDENTIALS)
    assert await code_of(place.target, service, method, request, WRONG[service]) == (
        "PERMISSION_DENIED",
        Reason.ROLE_MISSING,
    )


async def test_reflection_wants_credentials_too(place: Place) -> None:
    from grpc_reflection.v1alpha import reflection_pb2

    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with open_channel(place.target) as channel:
        method = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(method(iter([request]))))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        known = method(iter([request]), metadata=[("authorization", f"Bearer {BOB}")])
        assert len((await anext(aiter(known))).list_services_response.service) == 6


@settings(max_examples=40)
@given(st.sampled_from(sorted(BY_NAME)), st.sampled_from([0, 1]))
async def test_what_is_another_tenants_is_not_found_by_any_rpc(place: Place, name: str, which: int) -> None:
    ((service, method),) = [(service, method) for service, method in METHODS if method.name == name]
    if name == "Redeliver":
        theirs, never = place.delivery, f"deliveries/msg_{32 * '0'}"
    else:
        theirs, never = names(place)[which], f"generations/{NEVER}"
    answers = []
    for asked in (theirs, never):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(place.target, service, method, BY_NAME[name](asked), BOB)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        answers.append((caught.value.details() or "").replace(asked, never))
    assert answers[0] == answers[1]
    async with Client(place.target, ALICE) as alice:  # and nothing has happened to it
        assert (await alice.get(names(place)[which])).state == [Generation.SUCCEEDED, Generation.QUEUED][which]


async def test_a_tenants_webhook_and_deliveries_are_its_own(place: Place) -> None:
    (mine,) = await rpc(place.target, "GetWebhook", webhook_pb2.GetWebhookRequest(), ALICE)
    assert isinstance(mine, webhook_pb2.Webhook)
    assert mine.url == "https://alice.test/hook"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc(place.target, "GetWebhook", webhook_pb2.GetWebhookRequest(), BOB)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    for state in webhook_pb2.Delivery.State.values():
        request = webhook_pb2.ListDeliveriesRequest(state=webhook_pb2.Delivery.State.ValueType(state))
        assert await rpc(place.target, "ListDeliveries", request, BOB) == [webhook_pb2.ListDeliveriesResponse()]


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([Generation.QUEUED, Generation.SUCCEEDED]), max_size=2, unique=True),
    st.sampled_from(["", T2V]),
    st.sampled_from([{}, {"k": "alice"}]),
)
async def test_no_filter_lists_another_tenants_generations(
    place: Place, states: list[Any], variant: str, labels: dict[str, str]
) -> None:
    async with Client(place.target, BOB) as bob:
        found = [g async for g in bob.list(states=states, variant=variant, labels=labels)]
    assert not {generation.name for generation in found} & set(names(place))


async def test_a_page_token_is_of_one_tenant_and_is_signed(place: Place) -> None:
    listing = SERVICES[0].methods_by_name["ListGenerations"]
    assert place.page_token
    for key, token, code in (
        (ALICE, place.page_token, "OK"),
        (BOB, place.page_token, "INVALID_ARGUMENT"),
        (ALICE, "WzEsICJ4Il0=", "INVALID_ARGUMENT"),
    ):
        request = generation_pb2.ListGenerationsRequest(page_size=1, page_token=token)
        assert (await code_of(place.target, SERVICES[0].full_name, listing, request, key))[0] == code


async def test_images_request_ids_quota_and_usage_are_each_tenants_own(place: Place) -> None:
    for name in ("CreateGeneration", "EstimateGeneration"):
        method = SERVICES[0].methods_by_name[name]
        request: Any = message_class(method.input_type)()
        request.generation.variant = T2V
        request.generation.parameters.prompt = "x"
        for field in ("image", "last_image"):
            request.generation.parameters.ClearField("image")
            setattr(request.generation.parameters, field, place.media)
            code, _ = await code_of(place.target, SERVICES[0].full_name, method, request, BOB)
            assert code == "INVALID_ARGUMENT"
    async with Client(place.target, BOB) as bob:
        again = await bob.create(variant=T2V, prompt="another", request_id="same")  # alice's id, of another request
        assert again.name not in names(place)
        assert (await bob.get(again.name)).labels == {}
        quota = await bob.quota()
        assert (quota.tenant, quota.max_queued, quota.queued) == ("tenants/bob", 7, 1)
        assert await bob.usage() == []
        await bob.delete(again.name, force=True)
    async with Client(place.target, ALICE) as alice:
        assert [(day.generations, day.succeeded) for day in await alice.usage()] == [(1, 1)]
        assert (await alice.quota()).tenant == "tenants/alice"


async def test_no_answer_to_another_tenant_speaks_of_the_first(place: Place) -> None:
    for service, method in METHODS:
        if method.name not in WITHOUT_NAME - {"CreateGeneration", "EstimateGeneration", "UploadMedia", "GetWebhook"}:
            continue
        answers = await call(place.target, service, method, message_class(method.input_type)(), BOB)
        text = " ".join(str(answer) for answer in answers)
        assert "alice" not in text
        assert place.done.name not in text


async def test_the_table_has_every_route_of_the_document(place: Place) -> None:
    async with httpx.AsyncClient(base_url=place.http) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    declared = {
        (method.upper(), path): bool(operation["security"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    listed = {**dict.fromkeys(CLOSED_ROUTES, True), **dict.fromkeys(OPEN_ROUTES, False)}
    assert {route: closed for route, closed in listed.items() if route[1] != "/openapi.json"} == declared


@pytest.mark.parametrize("route", CLOSED_ROUTES, ids=" ".join)
async def test_no_route_is_open(place: Place, route: tuple[str, str]) -> None:
    method, path = route[0], route[1].format(generation=place.done.name.removeprefix("generations/"))
    role_missing = ALICE if path == "/metrics" else OPERATOR
    bad = [(None, 401), ("nonsense", 401), (new_secret(), 401), (ALICE[:-1], 401), (role_missing, 403)]
    async with httpx.AsyncClient(base_url=place.http) as http:
        for key, status in bad:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            answer = await http.request(method, path, headers=headers)
            assert answer.status_code == status
            assert place.done.name not in answer.text


@settings(max_examples=40)
@given(st.sampled_from(NAMED_ROUTES), st.sampled_from([0, 1]), st.booleans())
async def test_another_tenants_generation_is_not_found_by_any_route(
    place: Place, route: tuple[str, str], which: int, force: bool
) -> None:
    method, path = route
    query = {"force": "true"} if force and route == ("DELETE", "/generations/{generation}") else {}
    headers = {"Authorization": f"Bearer {BOB}", "X-Request-Id": "same"}
    name = names(place)[which]
    found = []
    async with httpx.AsyncClient(base_url=place.http, headers=headers) as http:
        for identity in (name.removeprefix("generations/"), NEVER):
            body: dict[str, str] | None = {} if path.endswith("download_url") else None
            answer = await http.request(method, path.format(generation=identity), params=query, json=body)
            assert answer.status_code == 404
            found.append(answer.text.replace(identity, NEVER))
        if path == "/v1/videos/{generation}":
            behind = await http.get("/v1/videos", params={"after": name.removeprefix("generations/")})
            assert behind.status_code == 404
    assert found[0] == found[1]
    async with Client(place.target, ALICE) as alice:  # and nothing has happened to it
        assert (await alice.get(name)).state == [Generation.SUCCEEDED, Generation.QUEUED][which]


async def test_no_route_lists_or_uses_what_is_another_tenants(place: Place) -> None:
    headers = {"Authorization": f"Bearer {BOB}"}
    asked = {"variant": T2V, "prompt": "x", "detach": True}
    async with httpx.AsyncClient(base_url=place.http, headers=headers) as http:
        for order in ("asc", "desc"):
            page = await http.get("/v1/videos", params={"order": order, "limit": 100})
            assert (page.json()["data"], page.json()["has_more"]) == ([], False)
        assert (await http.post("/generate", json={**asked, "image": place.media})).status_code == 400
        again = await http.post("/generate", json=asked)
        assert again.status_code == 202
        assert again.json()["name"] not in names(place)
        assert (await http.delete(f"/{again.json()['name']}", params={"force": True})).status_code == 204
        assert "alice" not in (await http.get("/models")).text
