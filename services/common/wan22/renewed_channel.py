"""A channel for as long as a process lives, in which certificates are replaced."""

from __future__ import annotations

import grpc

from wan22.channels import open_channel
from wan22.tls import Tls


class RenewedChannel:
    """Opened anew where the certificate's files have changed: one that has expired connects no more.

    What runs on the channel before goes on.
    """

    def __init__(self, target: str, tls: Tls | None = None, *, role: str | None = None) -> None:
        self._target = target
        self._tls = tls
        self._role = role
        self._stamp = None if tls is None else tls.stamp()
        self._retired: list[grpc.aio.Channel] = []
        self._channel = self._open()

    def current(self) -> grpc.aio.Channel:
        """By the files as they are now. Raises FailedPrecondition where they cannot be read."""
        if self._tls is not None and (stamp := self._tls.stamp()) != self._stamp:
            opened = self._open()
            self._stamp = stamp  # of before the files were read: what changed meanwhile is seen the next time
            self._retired.append(self._channel)
            self._channel = opened
        return self._channel

    async def close(self) -> None:
        """Closes all of them."""
        for channel in (*self._retired, self._channel):
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        return open_channel(self._target, self._tls, role=self._role)
