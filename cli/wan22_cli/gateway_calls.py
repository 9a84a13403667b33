"""Calls of the gateway's services from the command line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc.aio import Channel

from wan22.channels import open_channel
from wan22.client import tls_from_environment
from wan22.client_calls import Calls
from wan22_cli import options


@asynccontextmanager
async def open_calls(endpoint: str | None) -> AsyncIterator[tuple[Channel, Calls]]:
    """A connection to the gateway, and how it is called: with the key of the environment, and some patience."""
    target = options.connect(endpoint).endpoint
    async with open_channel(target, tls_from_environment()) as channel:
        yield channel, Calls(target, os.environ.get("WAN22_API_KEY"), first_patience=5.0, patience=60.0)
