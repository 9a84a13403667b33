"""One channel a worker address, opened at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from wan22.channels import open_channel
from wan22.v1 import inference_pb2_grpc

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub


class WorkerChannels:
    """Stubs by address; a channel reconnects by itself, so it is kept for the life of the process."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, address: str) -> InferenceServiceAsyncStub:
        """The stub for a worker at host:port."""
        if address not in self._channels:
            self._channels[address] = open_channel(address)
        return inference_pb2_grpc.InferenceServiceStub(self._channels[address])

    async def close(self) -> None:
        """Closes every channel."""
        for channel in self._channels.values():
            await channel.close()
