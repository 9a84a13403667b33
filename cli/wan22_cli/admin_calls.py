"""Calls of AdminService from the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wan22.client_calls import Calls
from wan22.v1.admin_pb2_grpc import AdminServiceStub
from wan22_cli.gateway_calls import open_calls

if TYPE_CHECKING:
    from wan22.v1.admin_pb2_grpc import AdminServiceAsyncStub  # is in the stub file only

DEADLINE = 10.0
"""Seconds for each try of a call."""


@asynccontextmanager
async def connect(endpoint: str | None) -> AsyncIterator[tuple[AdminServiceAsyncStub, Calls]]:
    """The gateway's AdminService, called with the key of the environment."""
    async with open_calls(endpoint) as (channel, calls):
        yield AdminServiceStub(channel), calls


def named(kind: str, name: str) -> str:
    """A resource's whole name, of which the last part alone may be typed."""
    return name if "/" in name else f"{kind}/{name}"
