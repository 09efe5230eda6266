"""A limit on concurrent answers that no single caller can use up.

Whoever asks while a slot is free gets it. While none is, the callers who wait take turns: each slot
that becomes free goes to the next caller, and among the calls of one caller to the oldest.
"""

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio


class FairSlots:
    """Slots that are handed out to callers in turn.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: OrderedDict[str, deque[anyio.Event]] = OrderedDict()

    @asynccontextmanager
    async def taken_by(self, caller: str) -> AsyncGenerator[None]:
        """Wait for a slot and hold it."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, caller: str) -> None:
        turn = anyio.Event()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_on()  # The slot came at the moment of the cancellation.
            else:
                self._waiting[caller].remove(turn)
                if not self._waiting[caller]:
                    del self._waiting[caller]
            raise

    def _pass_on(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        caller, turns = self._waiting.popitem(last=False)
        turns.popleft().set()
        if turns:
            self._waiting[caller] = turns  # At the end: the others are next.
