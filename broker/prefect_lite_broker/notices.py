"""Tells a client that nobody serves the key of its run, and which served key it may have meant."""

from __future__ import annotations

import asyncio
import difflib
import heapq

from prefect_lite.exceptions import BrokerError
from prefect_lite_broker.dispatch import Dispatch
from prefect_lite_broker.store import Store

FRESH_SECONDS = 1.0
"""Served keys are read at most this often, whatever clients ask."""

WAIT_SECONDS = 0.25
"""An ACCEPTED waits no longer than this for its notice."""

COMPARED_PER_READ = 20
"""Keys compared with the served ones after each read of these; the others get the sentence without names."""

MAX_REMEMBERED = 10_000
"""Sentences kept until the next read."""

MAX_CANDIDATES = 64
MAX_COMPARED = 128
"""Served keys that are compared, and characters of each: difflib is quadratic, and it runs on the loop."""


class Notices:
    """Knows the served keys of all brokers, a second old at most."""

    def __init__(self, store: Store, dispatch: Dispatch) -> None:
        self._store = store
        self._dispatch = dispatch
        self._reading: asyncio.Task[set[str] | None] | None = None
        self._served: set[str] = set()
        self._read_at = float("-inf")
        self._sentences: dict[str, str] = {}  # since the last read
        self._compared = 0

    async def sentence(self, task_key: str) -> str:
        """A sentence for people when no worker serves the key; "" when one does, or it isn't known."""
        if self._dispatch.serves(task_key):
            return ""
        served = await self._read()
        if served is None or task_key in served or self._dispatch.serves(task_key):
            return ""
        sentence = self._sentences.get(task_key)
        if sentence is None:
            sentence = self._make(task_key, served)
            if len(self._sentences) < MAX_REMEMBERED:
                self._sentences[task_key] = sentence
        return sentence

    def _make(self, task_key: str, served: set[str]) -> str:
        if self._compared >= COMPARED_PER_READ:
            return _plain_sentence(task_key)
        self._compared += 1
        return unserved_sentence(task_key, served.union(self._dispatch.keys))

    async def _read(self) -> set[str] | None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._read_at < FRESH_SECONDS:
            return self._served
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._fetch())
        # Not cancelled when it is late: a read in flight keeps its connection, and the next one profits.
        done, _ = await asyncio.wait({self._reading}, timeout=WAIT_SECONDS)
        return next(iter(done)).result() if done else None

    async def _fetch(self) -> set[str] | None:
        try:
            self._served = set(await self._store.served_keys())
        except BrokerError:
            return None
        self._read_at = asyncio.get_running_loop().time()
        self._sentences.clear()
        self._compared = 0
        return self._served

    async def aclose(self) -> None:
        """End a read in flight."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading})


def unserved_sentence(task_key: str, served: set[str]) -> str:
    """What to tell about a key that nobody serves, given the keys that are.

    >>> unserved_sentence("tasks.ad", {"tasks.add"})
    "No worker serves 'tasks.ad'; the run waits for one. Served is 'tasks.add'."
    """
    text = _plain_sentence(task_key)
    near = _near(task_key, served)
    if near:
        text += f" Served {'is' if len(near) == 1 else 'are'} {', '.join(map(repr, near))}."
    elif not served:
        text += " No worker is connected."
    return text


def _plain_sentence(task_key: str) -> str:
    return f"No worker serves {task_key!r}; the run waits for one."


def _near(task_key: str, served: set[str]) -> list[str]:
    """Served keys that may have been meant, at most six."""
    near: list[str] = []
    if len(task_key) <= MAX_COMPARED:
        # Of very many, those of about the same length are the likeliest to be spelt alike.
        alike = heapq.nsmallest(MAX_CANDIDATES, served, key=lambda key: abs(len(key) - len(task_key)))
        short = [key for key in alike if len(key) <= MAX_COMPARED]
        near = difflib.get_close_matches(task_key, short, n=3, cutoff=0.6)
    # A module that was renamed or run as a script leaves the function's name the same.
    tail = task_key.rpartition(".")[2]
    same = (key for key in served if key not in near and key.rpartition(".")[2] == tail)
    return near + heapq.nsmallest(3, same)
