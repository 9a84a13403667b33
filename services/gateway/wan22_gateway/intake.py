"""Puts checked requests into the queue: those that come while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Self

from wan22.errors import Reason, ResourceExhausted, Wan22Error
from wan22.v1.generation_pb2 import Generation
from wan22_gateway import reuse
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.store import generations, media, quarantine
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import Made, NewGeneration
from wan22_gateway.store.tenants import Quotas

COMPANY, MOST_REST = 8, 0.02
"""From how many requests on a group has the next one gather for as long as it took itself, and at most so many seconds:
each group costs 3 ms of a processor, whatever is in it."""


class _Order:
    """One request's generations, and who waits for them."""

    def __init__(self, new: Sequence[NewGeneration], *, reusing: bool) -> None:
        self.new = new
        self.reusing = reusing
        self.done: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()

    def settle(self, result: Generation | Wan22Error) -> None:
        if self.done.done():  # whoever asked has gone
            return
        if isinstance(result, Wan22Error):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


class Intake:
    """The only way into the queue. Use as an async context manager, around what calls it."""

    def __init__(self, database: Database, queue_limit: int) -> None:
        self._database = database
        self._queue_limit = queue_limit
        self._waiting: list[_Order] = []
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._loop = self._tasks.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        await self._tasks.__aexit__(None, None, None)  # what has ended its user is none of its errors

    async def add(self, new: Sequence[NewGeneration], *, reusing: bool) -> Generation:
        """Returns a request's first generation, durable: that of an earlier call, when its request id repeats.

        With `reusing` it is answered by an earlier video where there is one. Raises AlreadyExists for a request id that
        asked for something else, ResourceExhausted (QUEUE_FULL, QUOTA_EXCEEDED), FailedPrecondition (QUARANTINED),
        NotFound for an image that is gone.
        """
        order = _Order(new, reusing=reusing)
        self._waiting.append(order)
        self._wake.set()
        return await order.done

    async def _run(self) -> None:
        rest = 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(rest)
            self._wake.clear()
            orders, self._waiting = self._waiting, []
            began = time.monotonic()
            try:
                results = await self._database.write(self._insert, orders)
            except Wan22Error as error:
                results = [error] * len(orders)
            await self._answer(orders, results)
            rest = min(MOST_REST, time.monotonic() - began) if len(orders) >= COMPANY else 0.0

    async def _answer(self, orders: Sequence[_Order], results: Sequence[str | Wan22Error]) -> None:
        ids = [result for result in results if isinstance(result, str)]
        new = {order.new[0].id: order.new[0] for order in orders}
        try:
            messages = await self._database.read(_messages, ids, new)
        except Wan22Error as error:
            for order in orders:
                order.settle(error)
            return
        for order, result in zip(orders, results, strict=True):
            if isinstance(result, str):
                order.settle(messages.get(result) or generations.missing(result))
            else:
                order.settle(result)

    def _insert(self, tx: Transaction, orders: Sequence[_Order]) -> list[str | Wan22Error]:
        made = generations.find_requests(tx, [order.new[0].request for order in orders if order.new[0].request_id])
        queued = generations.count_queued(tx)
        quotas, watched = Quotas(tx), quarantine.tenants(tx)
        accepted: list[NewGeneration] = []
        results: list[str | Wan22Error] = []
        for order in orders:
            first = order.new[0]
            known = made.get(first.request)
            try:
                if known is not None:
                    results.append(known.repeated(first.request_id, first.request_digest))
                    continue
                for image in first.media:
                    media.get(tx, first.tenant, image)
                answers = reuse.answers(tx, order.new) if order.reusing else [None] * len(order.new)
                wanted = [new for new, answer in zip(order.new, answers, strict=True) if answer is None]
                if wanted:
                    self._check_room(queued + len(accepted), wanted)
                    if first.tenant in watched:
                        quarantine.check(tx, first.tenant, first.model_version, first.parameters)
                    quotas.take(first.tenant, len(wanted), first.predicted_seconds)
            except Wan22Error as error:
                results.append(error)
                continue
            accepted += wanted
            for new, answer in zip(order.new, answers, strict=True):
                if answer is not None:
                    generations.insert_answered(tx, new, answer)
            results.append(first.id)
            if first.request_id:
                made[first.request] = Made(first.id, first.request_digest)
        generations.insert(tx, accepted)
        return results

    def _check_room(self, queued: int, new: Sequence[NewGeneration]) -> None:
        if queued + len(new) > self._queue_limit:
            text = f"The queue is full: {queued} generations wait, the limit is {self._queue_limit}. Try again later."
            raise ResourceExhausted(text, reason=Reason.QUEUE_FULL, retry_after=max(1.0, new[0].predicted_seconds))


def _messages(tx: Transaction, ids: Sequence[str], new: Mapping[str, NewGeneration]) -> dict[str, Generation]:
    """Generations by id; of what is new, and as it was made, not the whole row is read."""
    rows = generations.untouched(tx, {identifier: new[identifier] for identifier in ids if identifier in new})
    known = {row.id for row in rows}
    rows += generations.get_many(tx, [identifier for identifier in ids if identifier not in known])
    return {row.id: generation_message(tx, row) for row in rows}
