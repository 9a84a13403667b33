"""Models made from messages say what protobuf's JSON takes and gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2, pool_pb2
from wan22_gateway.http.message_model import answer_model, from_json, request_model, to_json

PARAMETERS = generation_pb2.Parameters.DESCRIPTOR
ALL: list[Descriptor] = [
    generation_pb2.CreateGenerationRequest.DESCRIPTOR,
    generation_pb2.Generation.DESCRIPTOR,
    generation_pb2.GenerationEvent.DESCRIPTOR,
    generation_pb2.ListVariantsResponse.DESCRIPTOR,
    pool_pb2.Pool.DESCRIPTOR,
]


@pytest.mark.parametrize("descriptor", ALL, ids=lambda descriptor: descriptor.name)
def test_every_message_has_a_model_of_its_requests_and_of_its_answers(descriptor: Descriptor) -> None:
    for model in (request_model(descriptor), answer_model(descriptor)):
        assert set(model.model_fields) == {field.name for field in descriptor.fields}
        assert model.model_json_schema()["type"] == "object"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "negative_prompt": st.text(alphabet=st.characters(exclude_categories=["Cs"])),
            "num_frames": st.integers(-(2**31), 2**31 - 1),
            "seed": st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**63), 2**63 - 1).map(str),
            "flow_shift": st.floats(allow_nan=False, allow_infinity=False),
            "solver": st.sampled_from(["UNIPC", "EULER"]),
            "cut_prompt": st.booleans(),
            "loras": st.lists(st.fixed_dictionaries({"adapter": st.sampled_from(["m", "m:t"])}), max_size=2),
        },
    )
)
def test_what_the_model_takes_the_message_takes_and_gives_back(given_values: dict[str, Any]) -> None:
    model = request_model(PARAMETERS).model_validate(given_values)
    message = from_json(model.model_dump(exclude_none=True), generation_pb2.Parameters())
    for name, value in given_values.items():
        if name == "seed":
            assert message.seed == int(value)
        elif name == "loras":
            assert [lora.adapter for lora in message.loras] == [lora["adapter"] for lora in value]
        elif name == "solver":
            assert generation_pb2.Parameters.Solver.Name(message.solver) == value
        else:
            assert getattr(message, name) == value
    answer_model(PARAMETERS).model_validate(to_json(message))


@pytest.mark.parametrize(
    "bad",
    [
        {"num_frames": "17"},
        {"num_frames": 2**31},
        {"num_frames": 17.0},
        {"seed": "seven"},
        {"seed": 2**63},
        {"flow_shift": math.nan},
        {"solver": "SOLVER_UNSPECIFIED"},
        {"solver": 1},
        {"numFrames": 17},
        {"loras": [{"strengh": 1.0}]},
    ],
    ids=str,
)
def test_what_is_no_value_of_a_field_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request_model(PARAMETERS).model_validate(bad)


def test_what_only_protobuf_can_tell_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        from_json({"deadline": "tomorrow"}, generation_pb2.Generation())
