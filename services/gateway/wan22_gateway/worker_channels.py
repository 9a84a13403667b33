"""One channel a worker address, opened at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from wan22.channels import open_channel
from wan22.tls import Tls
from wan22.v1 import inference_pb2_grpc

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub


class WorkerChannels:
    """Stubs by address; a channel reconnects by itself, so it is kept for the life of the process."""

    def __init__(self, tls: Tls | None = None) -> None:
        self._tls = tls
        self._stamp = None if tls is None else tls.stamp()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._retired: list[grpc.aio.Channel] = []
        """Opened by an earlier certificate: streams on them go on."""

    def stub(self, address: str) -> InferenceServiceAsyncStub:
        """The stub for a worker at host:port."""
        if self._tls is not None and self._tls.stamp() != self._stamp:
            self._stamp = self._tls.stamp()
            self._retired += self._channels.values()
            self._channels = {}
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._tls, role="worker")
        return inference_pb2_grpc.InferenceServiceStub(self._channels[address])

    async def close(self) -> None:
        """Closes every channel."""
        for channel in (*self._retired, *self._channels.values()):
            await channel.close()
