"""The variants that are served: what a request may ask for, and what it gets when it says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from wan22.v1 import generation_pb2
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Call, Endpoint, json_answer, rpc
from wan22_gateway.http.message_model import answer_model, to_json


def endpoints(servicer: GenerationServicer) -> Sequence[Endpoint]:
    """/models."""
    answered = answer_model(generation_pb2.ListVariantsResponse.DESCRIPTOR)

    last: tuple[generation_pb2.ListVariantsResponse | None, bytes] = (None, b"")

    async def models(_call: Call) -> Response:
        nonlocal last
        variants = await servicer.ListVariants(generation_pb2.ListVariantsRequest(), None)
        if variants is not last[0]:  # it is the same one as long as nothing has changed
            last = variants, bytes(JSONResponse(to_json(variants)).body)
        return Response(last[1], media_type="application/json")

    return [
        Endpoint(
            method="GET",
            path="/models",
            summary="Lists the variants that pools serve, with their defaults and limits",
            handler=models,
            answers={200: json_answer(answered, "By name.")},
            rpc=rpc("GenerationService", "ListVariants"),
        )
    ]
