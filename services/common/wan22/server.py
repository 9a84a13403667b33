"""Runs servicers: errors become statuses here and nowhere else, health answers from its own thread, SIGTERM drains."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Self, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc_status import rpc_status

from wan22.channels import SERVER_OPTIONS
from wan22.errors import InternalError, InvalidRequest, Reason, ResourceExhausted, Wan22Error
from wan22.health import Health
from wan22.peers import Peers
from wan22.status import to_status
from wan22.tls import Tls

log = logging.getLogger(__name__)

READ_OUT_SECONDS = 2.0
"""How long the rest of a refused request stream is read."""


def configure_logging(service: str) -> None:
    """Sends logs to standard error, one line an event, UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s.%(msecs)03dZ {service} %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )


def refuse_unknown_fields(message: Message) -> None:
    """Raises InvalidRequest naming by number the first field that this version does not know, at any depth."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        _refuse_unknown_fields(message, "")


def _refuse_unknown_fields(message: Message, path: str) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        field = f"{path or message.DESCRIPTOR.name}.{unknown[0].field_number}"
        number = unknown[0].field_number
        text = f"The request has field number {number} in {path or 'its top level'}, which this version does not know."
        raise InvalidRequest(text, field=field, reason=Reason.UNKNOWN_FIELD)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for item in value if descriptor.is_repeated else [value]:
            _refuse_unknown_fields(item, f"{path}.{descriptor.name}".lstrip("."))


Guard = Callable[[str, Sequence[tuple[str, str | bytes]]], Awaitable[None]]
"""Raises unless a method may be called by who sent these metadata; what it sets in the context, the servicer sees."""


Observe = Callable[[str, str, float], None]
"""Is told of each call that has ended its method, its canonical code by name, and its seconds."""


def observe_nothing(method: str, code: str, seconds: float) -> None:
    """Looks away."""


class _Outcome:
    """How one call ends."""

    def __init__(self, method: str, observe: Observe) -> None:
        self.method = method
        self.code = "OK"
        self._observe = observe
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):  # the caller has gone, or the server stops
            self.code = "CANCELLED"
        self._observe(self.method, self.code, time.monotonic() - self._began)


class _Errors:
    """Asks the guard, turns raised domain errors into statuses, anything else into INTERNAL with a log entry.

    It takes the server's place where services register. As an interceptor, of which grpc.aio makes the chain anew for
    each call, it would add a tenth to what an empty call costs.
    """

    def __init__(
        self, server: grpc.aio.Server, *, strict: bool, guard: Guard | None, peers: Peers | None, observe: Observe
    ) -> None:
        self._server = server
        self._strict = strict
        self._observe = observe
        self._peers = peers
        self._guard = guard

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's, which looks a call's method up in them."""
        self._server.add_generic_rpc_handlers([_Wrapped(handler, self._wrap) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Nothing, as with the server itself: the same methods come by `add_generic_rpc_handlers`."""

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour = cast("Any", handler)
        coders = (_lenient(handler.request_deserializer), handler.response_serializer)
        if handler.response_streaming:
            inner = behaviour.stream_stream if handler.request_streaming else behaviour.unary_stream

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                with _Outcome(method, self._observe) as outcome:
                    try:
                        await self._admit(method, context)
                        async for response in inner(self._checked(request), context):
                            yield response
                    except Exception as error:  # noqa: BLE001  # the boundary: each error becomes a status
                        await _read_out(request)
                        await _abort(context, error, outcome)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, *coders)
        inner = behaviour.stream_unary if handler.request_streaming else behaviour.unary_unary

        async def unary(request: Any, context: Any) -> Any:
            with _Outcome(method, self._observe) as outcome:
                try:
                    await self._admit(method, context)
                    return await inner(self._checked(request), context)
                except Exception as error:  # noqa: BLE001  # the boundary: each error becomes a status
                    await _read_out(request)
                    await _abort(context, error, outcome)

        make_unary = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(unary, *coders)

    async def _admit(self, method: str, context: Any) -> None:
        if self._peers is not None:
            self._peers.check(method, context.auth_context())
        if self._guard is not None:
            await self._guard(method, context.invocation_metadata() or ())

    def _checked(self, request: Any) -> Any:
        """What is handed on: a message in order, or a stream that raises at one that is not."""
        if isinstance(request, AsyncIterable):
            return _only_messages(request)
        if isinstance(request, _Malformed):
            raise request.error()
        if self._strict:
            refuse_unknown_fields(request)
        return request


class _Wrapped(grpc.GenericRpcHandler):
    """A service's methods, each wrapped once."""

    def __init__(
        self,
        inner: grpc.GenericRpcHandler,
        wrap: Callable[[str, grpc.RpcMethodHandler[Any, Any]], grpc.RpcMethodHandler[Any, Any]],
    ) -> None:
        self._inner = inner
        self._wrap = wrap
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        known = self._methods.get(method)
        if known is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            known = self._methods[method] = self._wrap(method, handler)
        return known


class _Malformed:
    """Stands for bytes that are no message of their kind, which gRPC itself would call a fault of the server."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def error(self) -> InvalidRequest:
        return InvalidRequest(
            f"The request is not a message of this method ({self._reason}): use the published protos."
        )


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return data if deserialize is None else deserialize(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return read


async def _only_messages(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Malformed):
            raise request.error()
        yield request


async def _read_out(request: object) -> None:
    """Reads the rest of a refused stream: a client that is still writing sees an error of its own, not our status."""
    if not isinstance(request, AsyncIterable):
        return
    with suppress(TimeoutError, grpc.RpcError):
        async with asyncio.timeout(READ_OUT_SECONDS):
            async for _ in request:
                pass


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, outcome: _Outcome) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    known = explained(error, outcome.method)
    outcome.code = known.code.name
    await context.abort_with_status(rpc_status.to_status(to_status(known)))


def explained(error: Exception, method: str) -> Wan22Error:
    """The error that a caller is told; a fault of ours is logged, and is INTERNAL without its details."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceExhausted(f"The server's disk is full ({error}): free some space there.")
    if isinstance(error, Wan22Error):
        return error
    log.error("%s failed", method, exc_info=error)
    text = f"{method} failed by a fault of the server ({type(error).__name__}); its log has the details."
    return InternalError(text)


class Server:
    """A grpc.aio server with our error handling and, if asked for, plaintext health on a port of its own.

    Use as `async with Server(...) as server`; `server.port` is the bound port (a given port 0 picks a free one).
    `strict` refuses unary requests with unknown fields; `guard` is asked before every call; the health port is open.
    With `tls` the port is encrypted; with `peers`, too, callers need a certificate that these let in.
    """

    def __init__(
        self,
        register: Sequence[Callable[[grpc.aio.Server], None]],
        *,
        host: str,
        port: int,
        health_port: int | None = None,
        strict: bool = False,
        reflected: Sequence[str] = (),
        stop_grace: float = 5.0,
        guard: Guard | None = None,
        tls: Tls | None = None,
        peers: Peers | None = None,
        observe: Observe = observe_nothing,
    ) -> None:
        self._register = register
        self._observe = observe
        self._address = (host, port)
        self._strict = strict
        self._reflected = reflected
        self._stop_grace = stop_grace
        self._guard = guard
        self._tls = tls
        self._peers = None if tls is None else peers
        self._health = Health(host, health_port)
        self.port = port

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        errors = _Errors(self._server, strict=self._strict, guard=self._guard, peers=self._peers, observe=self._observe)
        services = cast("grpc.aio.Server", errors)  # as far as registering goes
        for add in self._register:
            add(services)
        if self._reflected:
            from grpc_reflection.v1alpha import reflection  # noqa: PLC0415  # only where the setting asks for it
            from grpc_reflection.v1alpha.reflection_pb2_grpc import (  # noqa: PLC0415  # likewise
                add_ServerReflectionServicer_to_server,
            )

            names = [*self._reflected, reflection.SERVICE_NAME]
            add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), services)
        host, port = self._address
        if self._tls is None:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        else:
            credentials = self._tls.server_credentials(require_client=self._peers is not None)
            self.port = self._server.add_secure_port(f"{host}:{port}", credentials)
        await self._server.start()
        await self._health.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._health.ready = False
        await self._server.stop(self._stop_grace)
        await self._health.__aexit__()

    @property
    def health_port(self) -> int | None:
        """The bound health port."""
        return self._health.port

    def set_ready(self, ready: bool) -> None:  # noqa: FBT001
        """Sets what the health service says for `ready`."""
        self._health.ready = ready

    @property
    def live(self) -> bool:
        """Whether the event loop turns; may be asked by any thread."""
        return self._health.live

    @property
    def ready(self) -> bool:
        """What `set_ready` was told last."""
        return self._health.ready


async def until_stopped() -> None:
    """Returns at the first SIGTERM or SIGINT; a second one ends the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        log.info("Stopping on %s.", number.name)
        stopped.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    await stopped.wait()
