"""Calls of any RPC of the gateway, by its descriptor."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from wan22.channels import open_channel
from wan22.errors import Reason
from wan22.keda import externalscaler_pb2
from wan22.status import from_rpc_error
from wan22.v1 import admin_pb2, generation_pb2, pool_pb2, webhook_pb2

SERVICES = [
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
    pool_pb2.DESCRIPTOR.services_by_name["PoolService"],
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
    externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"],
    webhook_pb2.DESCRIPTOR.services_by_name["WebhookService"],
]
NO_TENANTS = {"wan22.v1.PoolService", "wan22.v1.AdminService", "externalscaler.ExternalScaler"}
"""Services that no user may call at all: what they show is not a tenant's."""
METHODS = [(service.full_name, method) for service in SERVICES for method in service.methods]


def message_class(descriptor: Any) -> type[Message]:
    return GetMessageClass(descriptor)


async def call(target: str, service: str, method: Any, request: Message, key: str | None) -> list[Message]:
    """Calls any RPC and returns its answers, at most five."""
    metadata = [("authorization", f"Bearer {key}")] if key else None
    answer = message_class(method.output_type)
    coders = (type(request).SerializeToString, answer.FromString)
    path = f"/{service}/{method.name}"
    async with open_channel(target) as channel, asyncio.timeout(60):
        if method.client_streaming:
            return [await channel.stream_unary(path, *coders)(iter([request]), metadata=metadata)]
        if not method.server_streaming:
            return [await channel.unary_unary(path, *coders)(request, metadata=metadata)]
        answers: list[Message] = []
        async for part in channel.unary_stream(path, *coders)(request, metadata=metadata):
            answers.append(part)
            if len(answers) == 5:
                break
        return answers


async def rpc(target: str, name: str, request: Message, key: str) -> list[Message]:
    """Calls an RPC by its name, which no other service has."""
    ((service, method),) = [(service, method) for service, method in METHODS if method.name == name]
    return await call(target, service, method, request, key)


async def code_of(target: str, service: str, method: Any, request: Message, key: str | None) -> tuple[str, Reason]:
    try:
        await call(target, service, method, request, key)
    except grpc.aio.AioRpcError as error:
        return error.code().name, from_rpc_error(error).reason
    return "OK", Reason.UNSPECIFIED
