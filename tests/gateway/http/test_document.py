"""The OpenAPI document and the gateway say the same: schemathesis makes requests from it, and checks every answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks
from tests.gateway.scripted_worker import Place

from .test_generate import ASKED

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


def hold_to_its_word(base_url: str, known: str, examples: int) -> int:
    """Calls every operation with good and with bad requests, half of them about a generation that is there.

    Returns the number of operations. Raises what schemathesis finds.
    """
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    count = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        modes = schemathesis.GenerationMode
        cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE)))

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=examples < 100,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=cases, is_known=st.booleans())
        def call(case: Any, is_known: bool) -> None:
            if is_known and "generation" in (case.path_parameters or {}) and case.method != "DELETE":
                case.path_parameters["generation"] = known
            case.call_and_validate(base_url=base_url, checks=CHECKS, timeout=30)

        call()
        count += 1
    return count


async def test_the_document_is_valid_and_says_every_route(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert {"/generate", "/models", "/v1/videos", "/v1/videos/{generation}/content"} <= document["paths"].keys()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/components/schemas/WantedVideo"}
    validator = jsonschema_rs.validator_for({**whole, "components": document["components"]})
    assert validator.is_valid(ASKED)
    assert not validator.is_valid({**ASKED, "parameters": {"numb_frames": 5}})


async def test_answers_are_as_the_document_says(http: httpx.AsyncClient, place: Place) -> None:
    known = (await http.post("/generate", json=ASKED)).headers["wan22-generation"].removeprefix("generations/")
    assert await asyncio.to_thread(hold_to_its_word, place.http, known, 25) >= 15


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_answers_are_as_the_document_says_for_long(http: httpx.AsyncClient, place: Place) -> None:
    known = (await http.post("/generate", json=ASKED)).headers["wan22-generation"].removeprefix("generations/")
    assert await asyncio.to_thread(hold_to_its_word, place.http, known, 300) >= 15
