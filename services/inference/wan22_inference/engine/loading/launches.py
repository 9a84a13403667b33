"""The groups of a load on their way to decoders, which one thread launches while another copies what follows."""

from __future__ import annotations

from queue import SimpleQueue

from wan22_inference.engine.loading.group_decoder import GroupDecoder, Outcome, Prepared
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Stream


class Launches:
    """Groups that a thread gives decoders, in the order in which another brings them."""

    def __init__(self, places: Stream) -> None:
        """`places` is the stream of the tensors' memory."""
        self.outcomes: list[Outcome] = []
        """Of what has been launched, in that order."""
        self._places = places
        self._ready: SimpleQueue[tuple[GroupDecoder, Prepared] | None] = SimpleQueue()
        self._told: SimpleQueue[None] = SimpleQueue()
        self._ended = False

    def give(self, decoder: GroupDecoder, prepared: Prepared) -> None:
        """Has the decoder decode the group next."""
        self._ready.put((decoder, prepared))

    def end(self) -> None:
        """There are no more."""
        self._ready.put(None)

    def wait_for(self, count: int) -> None:
        """Returns when so many have been launched, or no more will be."""
        while len(self.outcomes) < count and not self._ended:
            self._told.get()

    def run(self) -> Clock:
        """Launches until there are no more, and tells what that took. Raises what launching raises."""
        clock = Clock()
        try:
            while (work := self._ready.get()) is not None:
                clock.lap(Step.IDLING)
                decoder, prepared = work
                self.outcomes.append(decoder.decode(prepared, self._places))
                clock.lap(Step.LAUNCHING)
                self._told.put(None)
        finally:
            self._ended = True
            self._told.put(None)
        clock.lap(Step.IDLING)
        return clock
