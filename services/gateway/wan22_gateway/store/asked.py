"""What is asked of the store by a coroutine, and done in another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan22_gateway.store.database import Transaction  # which stands on this module


class Asked:
    """A function that waits for its transaction, and what came of it."""

    def __init__(self, function: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: Exception | None = None
        self._future = future

    def settle(self) -> None:
        """Tells whoever waits; on the event loop."""
        if self._future.done():  # whoever asked has gone
            return
        if self.error is not None:
            self._future.set_exception(self.error)
        else:
            self._future.set_result(self.result)
