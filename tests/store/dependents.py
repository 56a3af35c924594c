"""Runs that wait for others, without a broker: its duty, its service, and a worker for all shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

import redis
from prefect_lite_broker import keys
from prefect_lite_broker.dependencies import Dependencies, DependencyService
from prefect_lite_broker.store import ClaimedRun, CommitReply

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.messages import Finish, RunState, Submit
from prefect_lite.states import TERMINAL_TYPES
from tests.store.driver import KEY, Driver, run_id, submission
from tests.tools.audit import audit

STEPS = {"watch_parents", "resolve", "ended", "settle", "wired", "due_dependencies", "waits"}
SESSION = "w1"
SOON_MS = 10_000


class CutStore:
    """A store whose broker is killed at its ``at``-th step: before it, or when Redis has executed it."""

    def __init__(self, store: Any, at: int, executed: bool) -> None:
        self._store, self._left, self._executed = store, at, executed
        self.dead = False
        self.shards = store.shards

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("on_blocked", "on_unblocked"):
            setattr(self._store, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._step(found) if name in STEPS else found

    def _step(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def step(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._executed:
                await call(*args, **options)
            if self._left <= 0:
                self.dead = True
                raise StoreUnavailable("killed")
            return await call(*args, **options)

        return step


class Desk:
    """What a broker does about dependencies; stands in for its hub, dispatch and watches."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.stopping = False
        self.dispatch = self.watches = self
        self.woken: list[tuple[str, str]] = []
        self.states: dict[str, RunState] = {}
        self.delays: list[float] = []
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.dependencies = Dependencies(self)
        self.service = DependencyService(store, self.dependencies, 1.0)

    def wake_run(self, task_key: str, run: str) -> None:
        self.woken.append((task_key, run))

    def delayed(self, seconds: float) -> None:
        self.delays.append(seconds)

    def ended(self, state: RunState) -> None:
        self.states[state.run_id] = state

    def surprise(self, run: str) -> None:
        pass

    def spawn(self, duty: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(duty), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, duty: Coroutine[Any, Any, None]) -> None:
        try:
            await duty
        except StoreUnavailable as exc:
            self.errors.append(exc)

    async def idle(self) -> None:
        """Until all that this broker was told is seen to."""
        while self._tasks:
            await asyncio.gather(*self._tasks)


class World:
    """Brokers on one namespace of several shards.

    Args:
        driver: A started driver; the others use its namespace.
        client_of: A plain client for a shard.
    """

    def __init__(self, driver: Driver, client_of: Callable[[int], redis.Redis]) -> None:
        self.driver = driver
        self.store = driver.store
        self.shards = driver.store.shards
        self.client_of = client_of
        self.prefixes = [keys.prefix(driver.store.settings.namespace, n).decode() for n in range(self.shards)]
        self.desk = Desk(self.store)
        self._numbers = count(1)

    async def start(self) -> World:
        assert await self.driver.worker(SESSION) == 1
        return self

    def restart(self) -> None:
        """The worker's session is to be opened anew."""
        self._numbers = count(1)

    # -- runs ---------------------------------------------------------------------------------------
    def new(self, shard: int | None = None, **fields: Any) -> Submit:
        """A submission, in a shard of choice."""
        while True:
            msg = submission(run_id(), **fields)
            if shard is None or self.store.shard_of(msg.run_id) == shard:
                return msg

    async def submit(self, *msgs: Submit) -> list[str]:
        """Submit runs, all of which are to be accepted; returns their ids."""
        replies = await self.driver.submit(*msgs)
        assert {reply.status for reply in replies} <= {"accepted", "exists"}, replies
        return [msg.run_id for msg in msgs]

    async def add(self, *parents: str, shard: int | None = None, **fields: Any) -> str:
        """Submit one run that waits for others; returns its id when its broker has nothing left to do."""
        (run,) = await self.submit(self.new(shard, parents=list(parents), **fields))
        await self.desk.idle()
        return run

    async def claim(self, limit: int = 100) -> list[ClaimedRun]:
        """Whatever is ready in any shard."""
        runs: list[ClaimedRun] = []
        for shard in range(self.shards):
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self.store.claim(SESSION, 1, shard, next(self._numbers), limit, answer.set_result)
            reply = await answer
            assert reply.status == "ok"
            runs += reply.runs
        return runs

    async def finish(self, runs: Iterable[ClaimedRun], type: str = "COMPLETED") -> None:
        """Commit all of them at once."""
        answers: list[asyncio.Future[CommitReply]] = []
        for run in runs:
            answer = asyncio.get_running_loop().create_future()
            self.store.finish(
                Finish(run.run_id, run.token, type, "", "", run.attempt, 0.0, b"result"), answer.set_result
            )
            answers.append(answer)
        for reply in await asyncio.gather(*answers):
            assert reply.status in ("ok", "already")

    async def work(self, failing: Iterable[str] = ()) -> list[str]:
        """Execute what is ready until nothing is; returns the ids in the order in which they were claimed."""
        done: list[str] = []
        while runs := await self.claim():
            done += [run.run_id for run in runs]
            await self.finish([run for run in runs if run.run_id in set(failing)], "FAILED")
            await self.finish([run for run in runs if run.run_id not in set(failing)])
            await self.desk.idle()
        return done

    async def state(self, run: str) -> RunState:
        return await self.driver.state(run)

    async def types(self, *runs: str) -> list[str]:
        return [(await self.state(run)).type for run in runs]

    async def ended(self, *runs: str) -> bool:
        return set(await self.types(*runs)) <= TERMINAL_TYPES

    # -- time, moved by hand --------------------------------------------------------------------------
    def hurry(self, *names: str, confirmed: bool = True) -> None:
        """Everything that waits for a service is due now; only what is due soon if not ``confirmed`` too."""
        latest = "+inf" if confirmed else str(time.time() * 1000 + SOON_MS)
        for shard, prefix in enumerate(self.prefixes):
            client = self.client_of(shard)
            for name in names:
                members: Any = client.zrangebyscore(prefix + name, "-inf", latest)
                for member in members:
                    client.zadd(prefix + name, {member: 1}, xx=True)

    async def serve(self, desk: Desk | None = None, *, confirmed: bool = False) -> None:
        """One round of a broker's service, as if some seconds had passed, or minutes if ``confirmed``."""
        desk = desk or self.desk
        self.hurry("blocked", "unblock", confirmed=confirmed)
        with suppress(StoreUnavailable):
            await desk.service.run_once()
        await desk.idle()

    # -- keys ---------------------------------------------------------------------------------------
    def names(self, *kinds: str) -> list[str]:
        """Keys of these kinds in all shards, without prefix."""
        found: list[str] = []
        for shard, prefix in enumerate(self.prefixes):
            for key in self.client_of(shard).scan_iter(match=prefix + "*", count=1000):
                name = key.decode().removeprefix(prefix)
                if name.partition(":")[0] in kinds:
                    found.append(name)
        return found

    def life(self, run: str) -> tuple[int, int]:
        """PTTL of record and body."""
        shard = self.store.shard_of(run)
        client, prefix = self.client_of(shard), self.prefixes[shard]
        return client.pttl(f"{prefix}r:{run}"), client.pttl(f"{prefix}b:{run}")  # type: ignore[return-value]

    def audit(self) -> dict[str, str]:
        """Run to state letter over all shards."""
        found: dict[str, str] = {}
        for shard, prefix in enumerate(self.prefixes):
            found.update(audit(self.client_of(shard), prefix))
        return found

    def check_clean(self) -> None:
        """Nothing of dependencies is left when all has ended."""
        states = self.audit()
        assert set("".join(states.values())) <= set("cfhk"), states
        assert self.names("blocked", "needed", "deps", "unblock", "orphans") == []

    def clear(self) -> None:
        for shard, prefix in enumerate(self.prefixes):
            client = self.client_of(shard)
            for key in client.scan_iter(match=prefix + "*", count=1000):
                client.delete(key)


__all__ = ["KEY", "CutStore", "Desk", "World"]
