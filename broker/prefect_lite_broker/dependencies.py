"""Runs that wait for others: who takes the steps between the shards, and when.

The broker that stores a blocked run registers it with all it waits for, and the broker that ends a run
tells those that wait for it, both at once and without asking Redis whether there is anything to do. Should
either be gone or too slow, ``DependencyService`` of any broker finds what is left. No step relies on another
one having been taken by the same broker, and each may be taken twice.

1. SUBMIT stores the run as blocked, with what it waits for.
2. ``watch_parents`` registers it, in the shard of each of these, and says which have ended.
3. ``resolve`` tells it how one has ended; the last makes it ready.
4. The script that ends a run puts it into ``unblock`` if others wait for it or it waited for others.
   ``follow`` resolves its children, a hundred at a time, has its parents let it go, and removes it last.
5. ``DependencyService`` takes steps 2 to 4 for whatever has been left lying for a second.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from prefect_lite.protocol.messages import RunState
from prefect_lite_broker.cycles import find_cycles
from prefect_lite_broker.maintenance import Service
from prefect_lite_broker.store import EndedRun, Resolved, Settlement, Store

logger = logging.getLogger(__name__)

PAIRS_PER_ROUND = 400
"""(Parent, child) pairs in one round of calls; a pipeline then takes some milliseconds."""

RUNS_PER_ROUND = 100
"""Ended runs in one round."""

ROUNDS = 4
"""Rounds under way at a time."""

MOST_PAIRS = 50_000
MOST_ENDED = 50_000
"""What a broker remembers to see to itself; the rest is left to the service, which asks Redis."""


class Board(Protocol):
    """What is told of blocked runs: the hub."""

    store: Store
    stopping: bool
    delayed: Callable[[float], None]

    @property
    def dispatch(self) -> Any: ...
    @property
    def watches(self) -> Any: ...
    def spawn(self, duty: Coroutine[Any, Any, None], what: str) -> None: ...


class Dependencies:
    """Sees to what this broker stored and ended.

    Args:
        board: Who is told of runs that have become ready, or ended.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._store = board.store
        self._new: deque[tuple[str, list[str]]] = deque()  # blocked runs to register
        self._pairs = 0  # in these
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._rounds = 0
        self._store.on_blocked = self.blocked
        self._store.on_unblocked = self.unblocked

    @property
    def pending(self) -> int:
        """Pairs and ended runs that this broker has yet to see to."""
        return self._pairs + len(self._ended)

    # -- what the store tells -----------------------------------------------------------------------
    def blocked(self, run_id: str, parents: list[str]) -> None:
        """A run was stored that waits for others."""
        if self._pairs + len(parents) > MOST_PAIRS and self._new:
            return
        self._pairs += len(parents)
        self._new.append((run_id, parents))
        self._begin()

    def unblocked(self, run_id: str) -> None:
        """A run ended that others wait for, or that waited for others."""
        if len(self._ended) < MOST_ENDED:
            self._ended[run_id] = None
            self._begin()

    def _begin(self) -> None:
        """Another round, unless enough are under way; it starts in the next turn and finds more by then."""
        if not self._rounds and not self._board.stopping:
            self._spawn()

    def _spawn(self) -> None:
        self._rounds += 1
        self._board.spawn(self._work(), "Seeing to runs that wait for others")

    async def _work(self) -> None:
        done = False
        try:
            while self.pending:
                ended, new = self._take_ended(), self._take_new()
                if self.pending and self._rounds < ROUNDS:
                    self._spawn()
                if ended:
                    for run_id in await self.follow(ended):
                        self._ended[run_id] = None
                if new:
                    await self.wire(new)
            done = True
        finally:
            self._rounds -= 1
            if not done:  # the store is away: the service will find it all
                self._ended.clear()
                self._new.clear()
                self._pairs = 0

    def _take_ended(self) -> list[str]:
        # One with thousands of children goes to the end of the line after each hundred.
        return [self._ended.popitem(last=False)[0] for _ in range(min(len(self._ended), RUNS_PER_ROUND))]

    def _take_new(self) -> list[tuple[str, list[str]]]:
        taken: list[tuple[str, list[str]]] = []
        room = PAIRS_PER_ROUND
        while self._new and (not taken or len(self._new[0][1]) <= room):
            taken.append(self._new.popleft())
            room -= len(taken[-1][1])
            self._pairs -= len(taken[-1][1])
        return taken

    # -- steps --------------------------------------------------------------------------------------
    async def wire(self, blocked: Sequence[tuple[str, list[str]]]) -> None:
        """Steps 2 and 3 for blocked runs and what they wait for."""
        pairs = [(parent, child) for child, parents in blocked for parent in parents]
        for start in range(0, len(pairs), PAIRS_PER_ROUND):
            part = pairs[start : start + PAIRS_PER_ROUND]
            outcomes = await self._store.watch_parents(part)
            ended = [
                (child, parent, outcome)
                for (parent, child), outcome in zip(part, outcomes, strict=True)
                if outcome
            ]
            await self._store.settle(list((await self.resolve(ended)).values()))
        await self._store.wired([child for child, _ in blocked])

    async def follow(self, run_ids: Sequence[str]) -> list[str]:
        """Step 4 for some of what is left to do for ended runs; returns those with more."""
        ended = await self._store.ended(run_ids)
        done = await self.resolve(
            [(child, run.run_id, run.outcome) for run in ended for child in run.children]
        )
        await self._store.settle(list(_letting_go(ended)))
        # Last: until then somebody else may do the same again.
        return await self._store.settle(
            [
                done.get(run.run_id, Settlement(run.run_id, [], [], []))._replace(freed=run.parents)
                for run in ended
            ]
        )

    async def resolve(self, outcomes: Sequence[tuple[str, str, str]]) -> dict[str, Settlement]:
        """Step 3 for (child, parent, outcome) each; returns by parent what has been done."""
        done: dict[str, Settlement] = {}
        for start in range(0, len(outcomes), PAIRS_PER_ROUND):
            for resolved in await self._store.resolve(outcomes[start : start + PAIRS_PER_ROUND]):
                parent = resolved.parent
                settlement = done.get(parent)
                if settlement is None:
                    settlement = done[parent] = Settlement(parent, [], [], [])
                gone = resolved.status in ("failed", "ended")
                (settlement.gone if gone else settlement.told).append(resolved.run_id)
                self._tell(resolved)
        return done

    def _tell(self, resolved: Resolved) -> None:
        board = self._board
        match resolved.status:
            case "ready":
                board.dispatch.wake_run(resolved.task_key, resolved.run_id)
            case "delayed":
                board.delayed(resolved.delayed_seconds)
            case "failed":
                state: RunState | None = resolved.state
                if state is not None:
                    board.watches.ended(state)
                self.unblocked(resolved.run_id)
            case "ended":
                # It may be this very call that ended it, and whose answer got lost.
                board.watches.surprise(resolved.run_id)


def _letting_go(ended: Iterable[EndedRun]) -> Iterable[Settlement]:
    """What the parents of ended runs are told."""
    gone: dict[str, list[str]] = {}
    for run in ended:
        for parent in run.parents:
            gone.setdefault(parent, []).append(run.run_id)
    return (Settlement(parent, [], children, []) for parent, children in gone.items())


class DependencyService(Service):
    """Sees to what the broker whose duty it was has left lying."""

    name = "dependencies"

    def __init__(self, store: Store, dependencies: Dependencies, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self._store = store
        self._dependencies = dependencies

    async def run_once(self) -> float:
        for shard in range(self._store.shards):
            more = True
            while more:
                more, ended, blocked = await self._store.due_dependencies(shard)
                while ended:
                    ended = await self._dependencies.follow(ended)
                if blocked:
                    await self._dependencies.wire(blocked)
                    await self._break_cycles([run_id for run_id, _ in blocked])
        return self.interval_seconds

    async def _break_cycles(self, run_ids: list[str]) -> None:
        """A run that waits for itself by way of others would wait for ever."""
        for run_id, parent in await find_cycles(self._store, run_ids):
            logger.warning(
                "Run %s waits for run %s, which waits for it", run_id, parent,
                extra={"run_id": run_id, "action": "cycle"},
            )  # fmt: skip
            await self._dependencies.resolve([(run_id, parent, "w")])
