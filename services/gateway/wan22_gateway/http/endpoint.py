"""What a route is declared by: who may call it, what it takes, what it answers. All else follows from this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from wan22_gateway.http.model import Model

B = TypeVar("B", bound=BaseModel)


class Nothing(Model):
    """No parameters."""


@dataclass
class Call:
    """A request that is let in and valid."""

    request: Request
    query: BaseModel
    body: BaseModel | None
    files: FormData | None
    """The parts of a multipart body that are files; None of a JSON one."""
    held: AsyncExitStack
    """What the body takes, which there is not much of."""

    @property
    def generation(self) -> str:
        """The name of the generation that the path has an id of."""
        return f"generations/{self.request.path_params['generation']}"

    def body_as(self, kind: type[B]) -> B:
        """The body, by the type that the endpoint declares."""
        if not isinstance(self.body, kind):
            raise TypeError(f"the endpoint declares no body of {kind.__name__}")
        return self.body

    def query_as(self, kind: type[B]) -> B:
        """The query, by the type that the endpoint declares."""
        if not isinstance(self.query, kind):
            raise TypeError(f"the endpoint declares no query of {kind.__name__}")
        return self.query

    async def drop_body(self) -> None:
        """Lets the body go, before a long wait."""
        self.body = self.files = None
        await self.held.aclose()


@dataclass(frozen=True)
class Answer:
    """One status that an endpoint answers with."""

    description: str
    content: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    """By media type: the model of a JSON body, None for bytes or text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of note, with what they say."""


Handler = Callable[[Call], Awaitable[Response | ASGIApp]]


@dataclass(frozen=True)
class Endpoint:
    """One method of one path."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    rpc: str | None
    """The RPC that it stands for, `/package.Service/Method`: who may call that may call this. None is open to all."""
    query: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    """A JSON body, which is then required."""
    files: Sequence[str] = ()
    """The body may also be multipart/form-data; these of its parts are files. The others are fields of `body`."""
    description: str = ""
    refusals: Sequence[int] = ()
    """Statuses of errors that only this endpoint has."""
    quiet: bool = False
    """Leaves it out of the log: probes and scrapes come by the second."""


def json_answer(model: type[BaseModel], description: str, **headers: str) -> Answer:
    """An answer with a JSON body."""
    return Answer(description, {"application/json": model}, headers)


def rpc(service: str, method: str) -> str:
    """`/package.Service/Method`."""
    return f"/wan22.v1.{service}/{method}"
