"""One call of the SDK: its deadline, its key, and another try for as long as nobody answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

from wan22 import connection_failure
from wan22.errors import Cancelled, NotFound, Reason, Unavailable, Wan22Error
from wan22.status import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")

FIRST_PAUSE = 0.2
"""Seconds before the second try; doubled each time, plus or minus a quarter so that clients do not return together."""
LONGEST_PAUSE = 5.0

TRANSIENT = (Unavailable, Cancelled)
"""What a server that stops or restarts answers. Nobody else cancels our calls on the server's side."""


class Calls:
    """Places calls at one endpoint.

    `first_patience` is how many seconds an endpoint is tried that has never answered: a wrong address shows soon.
    `patience` is how many seconds one is tried that has: a gateway's restart passes unseen. `advice` ends the text of
    the error that says that nobody answers.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str | None,
        *,
        first_patience: float,
        patience: float,
        advice: str = "check the address, or start what answers there by `wan22 up`.",
    ) -> None:
        self.endpoint = endpoint
        self._advice = advice
        self._metadata: Sequence[tuple[str, str]] = [("authorization", f"Bearer {api_key}")] if api_key else []
        self._first_patience = first_patience
        self._patience = patience
        self._answered = False

    def patience(self) -> Patience:
        """Starts the back-off of one call."""
        seconds = self._patience if self._answered else self._first_patience
        return Patience(self.endpoint, seconds, self._advice)

    async def unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: float
    ) -> Response:
        """Calls an idempotent method, again and again while the answer is UNAVAILABLE. `deadline` is of each try."""
        patience = self.patience()
        while True:
            try:
                response = await method(request, timeout=deadline, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                await patience.pause(self.note(from_rpc_error(error)))
            else:
                self._answered = True
                return response

    async def delete(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: float
    ) -> None:
        """Calls a method that removes something; `deadline` is of each try.

        NOT_FOUND after a try whose answer was lost is that try's success.
        """
        patience = self.patience()
        lost = False
        while True:
            try:
                await method(request, timeout=deadline, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                failed = self.note(from_rpc_error(error))
                if lost and isinstance(failed, NotFound):
                    return
                await patience.pause(failed)
                lost = True
            else:
                self._answered = True
                return

    async def once(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: float
    ) -> Response:
        """Calls a method that is not idempotent, once."""
        try:
            response = await method(request, timeout=deadline, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self.note(from_rpc_error(error)) from error
        self._answered = True
        return response

    async def send(
        self,
        method: grpc.aio.StreamUnaryMultiCallable[Request, Response],
        requests: Callable[[], AsyncIterator[Request]],
        *,
        deadline: float,
    ) -> Response:
        """Sends a stream, from its start again while the answer is UNAVAILABLE. `deadline` is of each try."""
        patience = self.patience()
        while True:
            try:
                return await self.send_once(method, requests(), deadline=deadline)
            except Wan22Error as error:
                await patience.pause(error)

    async def send_once(
        self,
        method: grpc.aio.StreamUnaryMultiCallable[Request, Response],
        requests: AsyncIterator[Request],
        *,
        deadline: float,
    ) -> Response:
        """Sends a stream once."""
        try:
            response = await method(requests, timeout=deadline, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self.note(from_rpc_error(error)) from error
        self._answered = True
        return response

    @asynccontextmanager
    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, deadline: float
    ) -> AsyncIterator[AsyncIterator[Response]]:
        """Opens a stream once; its errors are wan22.errors, and leaving the context ends it on the server too."""
        call = method(request, timeout=deadline, metadata=self._metadata)
        try:
            yield self._responses(call)
        except grpc.aio.AioRpcError as error:
            raise self.note(from_rpc_error(error)) from error
        finally:
            call.cancel()

    async def _responses(self, call: grpc.aio.UnaryStreamCall[Request, Response]) -> AsyncIterator[Response]:
        async for response in call:
            self._answered = True
            yield response

    def note(self, error: Wan22Error) -> Wan22Error:
        """Remembers that the endpoint answered, where the error shows it."""
        self._answered = self._answered or not isinstance(error, Unavailable) or error.reason is not Reason.UNSPECIFIED
        return error


class Patience:
    """The back-off of one call that may be repeated."""

    def __init__(self, endpoint: str, seconds: float, advice: str) -> None:
        self._endpoint = endpoint
        self._advice = advice
        self._seconds = seconds
        self.restore()

    def restore(self) -> None:
        """Starts anew: there was progress."""
        self._pause = FIRST_PAUSE
        self._end = time.monotonic() + self._seconds

    async def pause(self, error: Wan22Error) -> None:
        """Waits until the next try makes sense. Raises the error when none does or patience is over."""
        if not isinstance(error, TRANSIENT):
            raise error
        pause = max(self._pause * random.uniform(0.75, 1.25), error.retry_after or 0.0)  # noqa: S311  # only jitter
        if time.monotonic() + pause > self._end:
            raise self._unreachable(error) from error
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        await asyncio.sleep(pause)

    def _unreachable(self, error: Wan22Error) -> Wan22Error:
        if error.reason is not Reason.UNSPECIFIED:  # the server is there and says why it cannot
            return error
        failure = connection_failure.explain(error.message)
        what = "could not be talked to" if failure.reached else "did not answer"
        advice = failure.advice or self._advice
        return Unavailable(f"{self._endpoint} {what} for {self._seconds:g} s ({failure.why}): {advice}")
