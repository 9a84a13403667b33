"""The peer: a bare grpc.aio server that answers the same messages and does nothing with them; prints its port."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

from wan22.v1 import generation_pb2

Context = grpc.aio.ServicerContext[generation_pb2.CreateGenerationRequest, generation_pb2.Generation]


async def create(request: generation_pb2.CreateGenerationRequest, _: Context) -> generation_pb2.Generation:
    """The generation of the request."""
    return request.generation


async def get(request: generation_pb2.GetGenerationRequest, _: Context) -> generation_pb2.Generation:
    """A generation of that name."""
    return generation_pb2.Generation(name=request.name)


async def serve() -> None:
    """Serves until it is killed."""
    server = grpc.aio.server()
    answer = generation_pb2.Generation.SerializeToString
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "CreateGeneration": grpc.unary_unary_rpc_method_handler(
            create, generation_pb2.CreateGenerationRequest.FromString, answer
        ),
        "GetGeneration": grpc.unary_unary_rpc_method_handler(
            get, generation_pb2.GetGenerationRequest.FromString, answer
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("wan22.v1.GenerationService", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
