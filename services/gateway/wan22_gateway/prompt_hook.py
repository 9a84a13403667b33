"""The hook before queueing: a service of the operator's that extends prompts, or refuses them by its policy."""

from __future__ import annotations

import json
import logging
import time
import uuid
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wan22.errors import FailedPrecondition, Reason, Unavailable
from wan22.v1 import generation_pb2
from wan22_gateway.webhooks.poster import Poster
from wan22_gateway.webhooks.signature import signed_headers

log = logging.getLogger(__name__)
MAX_ANSWER = 64 * 1024
RETRY_SECONDS = 5.0


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["allow", "replace", "refuse"]
    prompt: str | None = None
    """What takes the prompt's place; with `replace`."""
    negative_prompt: str | None = None
    """What takes the negative prompt's place; with `replace`."""
    message: str = Field("", max_length=500)
    """What the caller is told; with `refuse`."""


class PromptHook:
    """Asks one HTTPS address about every request that would be queued."""

    def __init__(self, poster: Poster, url: str, secret_file: Path, *, seconds: float, fail_open: bool) -> None:
        self._poster = poster
        self._url = url
        self._secret_file = secret_file
        self._seconds = seconds
        self._fail_open = fail_open

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._poster.__aexit__()

    async def ask(self, tenant: str, generation: generation_pb2.Generation) -> generation_pb2.AskedTexts | None:
        """Puts the texts that the hook wants into a request, and returns those that were there; None if it has none.

        Raises FailedPrecondition (PROMPT_REFUSED) with the hook's message, Unavailable when the hook does not answer as
        it should, unless it is to be done without.
        """
        try:
            answer = await self._answer(tenant, generation)
        except (Unavailable, FailedPrecondition) as error:
            if self._fail_open:
                log.warning("The prompt hook is passed by: %s", error.message)
                return None
            log.warning("A request is refused since the prompt hook fails: %s", error.message)
            text = "Prompts cannot be checked now, and none is taken unchecked: try again later."
            raise Unavailable(text, retry_after=RETRY_SECONDS) from error
        if answer.action == "refuse":
            message = answer.message or "The prompt is refused by this service's policy."
            raise FailedPrecondition(message, reason=Reason.PROMPT_REFUSED)
        if answer.action == "allow":
            return None
        asked = _texts_of(generation.parameters)
        if answer.prompt is not None:
            generation.parameters.prompt = answer.prompt
        if answer.negative_prompt is not None:
            generation.parameters.negative_prompt = answer.negative_prompt
        return asked

    async def _answer(self, tenant: str, generation: generation_pb2.Generation) -> _Answer:
        parameters = generation.parameters
        data = {
            "tenant": f"tenants/{tenant}",
            "variant": generation.variant,
            "labels": dict(generation.labels),
            "prompt": parameters.prompt,
            "negative_prompt": parameters.negative_prompt if parameters.HasField("negative_prompt") else None,
        }
        body = json.dumps({"type": "prompt.check", "data": data}, ensure_ascii=False).encode()
        try:
            secret = self._secret_file.read_text().strip()
            headers = signed_headers(f"msg_{uuid.uuid4().hex}", int(time.time()), body, [secret])
        except OSError as error:
            raise Unavailable(f"{self._secret_file} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise Unavailable(f"{self._secret_file} has no secret, `whsec_` and base64.") from error
        answer = await self._poster.post(self._url, headers, body, seconds=self._seconds, most=MAX_ANSWER)
        if answer.status != 200:
            raise Unavailable(f"The prompt hook answered {answer.status}: it should 200.")
        try:
            return _Answer.model_validate_json(answer.body)
        except ValidationError as error:
            raise Unavailable(f"The prompt hook's answer is not as it should be: {error.errors()[0]['msg']}.") from None


def _texts_of(parameters: generation_pb2.Parameters) -> generation_pb2.AskedTexts:
    texts = generation_pb2.AskedTexts(prompt=parameters.prompt)
    if parameters.HasField("negative_prompt"):
        texts.negative_prompt = parameters.negative_prompt
    return texts
