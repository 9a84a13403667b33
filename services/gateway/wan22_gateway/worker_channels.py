"""One channel a worker address, opened at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wan22.renewed_channel import RenewedChannel
from wan22.tls import Tls
from wan22.v1 import inference_pb2_grpc

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub


class WorkerChannels:
    """Stubs by address; a channel reconnects by itself, so it is kept for the life of the process."""

    def __init__(self, tls: Tls | None = None) -> None:
        self._tls = tls
        self._channels: dict[str, RenewedChannel] = {}

    def stub(self, address: str) -> InferenceServiceAsyncStub:
        """The stub for a worker at host:port."""
        if address not in self._channels:
            self._channels[address] = RenewedChannel(address, self._tls, role="worker")
        return inference_pb2_grpc.InferenceServiceStub(self._channels[address].current())

    async def close(self) -> None:
        """Closes every channel."""
        for channel in self._channels.values():
            await channel.close()
