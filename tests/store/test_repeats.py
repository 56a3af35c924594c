"""Every script executed, and its reply lost: the repeat changes nothing and answers what the first one did.

The default run cuts each a few times; ``HYPOTHESIS_PROFILE=full`` 1,000 times.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from prefect_lite_broker.scripts import SCRIPTS

from tests.store.driver import KEY, Driver, MakeDriver, submission
from tests.tools.proxy import Proxy
from tests.tools.server import ValkeyServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

CUTS = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 25


class Cutter:
    """A driver behind a proxy that loses what it is told to lose."""

    def __init__(self, driver: Driver, proxy: Proxy) -> None:
        self.driver, self.proxy = driver, proxy
        self._turn = count()

    def arm(self, script: str) -> None:
        """Lose the next reply of a script; every fifth time its request."""
        sha = SCRIPTS[script].sha.encode()
        if next(self._turn) % 5 == 4:
            self.proxy.cut_next_request(sha)
        else:
            self.proxy.cut_next_reply(sha)

    def check(self) -> None:
        assert not self.proxy.armed, "the cut did not happen"


@pytest.fixture
async def cutter(make_driver: MakeDriver, valkey: ValkeyServer) -> AsyncIterator[Cutter]:
    proxy = Proxy(valkey.socket_path)
    await proxy.start(("127.0.0.1", 0))
    driver = await make_driver(redis_url=f"redis://127.0.0.1:{proxy.address[1]}", lease_seconds=60)
    await driver.worker()
    yield Cutter(driver, proxy)
    await driver.stop()
    await proxy.close()


async def test_submit(cutter: Cutter) -> None:
    ids: list[str] = []
    for i in range(CUTS):
        msgs = [submission(), submission(idempotency_key=f"k{i}"), submission(countdown_seconds=99)]
        cutter.arm("submit")
        assert [reply.status for reply in await cutter.driver.submit(*msgs)] == ["accepted"] * 3
        cutter.check()
        ids += [msg.run_id for msg in msgs]
    assert sorted(cutter.driver.audit()) == sorted(ids)


async def test_claim(cutter: Cutter) -> None:
    driver = cutter.driver
    ids = await driver.accepted(CUTS * 3)
    claimed: list[str] = []
    for _ in range(CUTS):
        cutter.arm("claim")
        runs = await driver.claim(limit=3)
        cutter.check()
        assert len(runs) == 3
        claimed += [run.run_id for run in runs]
    assert sorted(claimed) == sorted(ids), "none lost, none twice"


async def test_write_through(cutter: Cutter) -> None:
    """The repeat is made in two parts, of the one and of the other script."""
    driver = cutter.driver
    submitted: list[str] = []
    claimed: list[str] = []
    for i in range(CUTS):
        msgs = [submission(body=str(i).encode()) for _ in range(1 + i % 3)]
        submitted += [msg.run_id for msg in msgs]
        cutter.arm("through")
        stored, reply = await driver.write_through(msgs, limit=2)
        cutter.check()
        assert {each.status for each in stored} == {"accepted"}
        assert reply.status == "ok"
        assert len(reply.runs) == min(2, len(msgs))
        if i % 3 == 2:
            reply.runs.extend(await driver.claim())
        assert {run.body for run in reply.runs} == {str(i).encode()}
        claimed += [run.run_id for run in reply.runs]
        for run in reply.runs:
            assert (await driver.finish(run)).status == "ok"
    assert claimed == submitted, "none lost, none twice"


async def test_started(cutter: Cutter) -> None:
    driver = cutter.driver
    for _ in range(CUTS):
        (run_id,) = await driver.accepted()
        (run,) = await driver.claim()
        cutter.arm("started")
        driver.started(run)
        assert (await driver.state(run_id)).type == "RUNNING"
        cutter.check()


@pytest.mark.parametrize("kind", ["finish", "retry", "release"])
async def test_commits(cutter: Cutter, kind: str) -> None:
    driver = cutter.driver
    commits: dict[str, Callable[..., Awaitable[object]]] = {
        "finish": driver.finish,
        "retry": lambda run: driver.retry(run, 99),
        "release": driver.release,
    }
    for i in range(CUTS):
        await driver.accepted()
        (run,) = await driver.claim(limit=1)
        cutter.arm(kind)
        reply = await commits[kind](run)
        cutter.check()
        assert reply.status in ("ok", "already")  # type: ignore[attr-defined]
        assert reply.task_key == KEY  # type: ignore[attr-defined]
        if kind == "finish":
            assert reply.state.result == b"result"  # type: ignore[attr-defined]
        elif kind == "retry":
            assert (await driver.store.stats())["delayed"] == i + 1
    states = list(driver.audit().values())
    assert set(states) == {{"finish": "c", "retry": "D", "release": "R"}[kind]}


async def test_cancel(cutter: Cutter) -> None:
    driver = cutter.driver
    for _ in range(CUTS):
        waiting, running = await driver.accepted(2)
        (run,) = await driver.claim(limit=1)
        assert run.run_id == waiting
        for run_id, status in ((waiting, "cancelling"), (running, "cancelled")):
            cutter.arm("cancel")
            assert (await driver.cancel(run_id)).status == status
            cutter.check()


async def test_lookup_and_renew(cutter: Cutter) -> None:
    driver = cutter.driver
    (run_id,) = await driver.accepted()
    (run,) = await driver.claim()
    for _ in range(CUTS):
        cutter.arm("lookup")
        assert (await driver.state(run_id)).type == "PENDING"
        cutter.arm("renew")
        assert (await driver.store.renew("w1", 1, [[run.run_id, run.token]])).status == "ok"
        cutter.check()


async def test_sessions(cutter: Cutter) -> None:
    driver = cutter.driver
    for i in range(CUTS):
        session = f"s{i}"
        for script in ("open_session", "serve"):
            cutter.arm(script)
            await driver.worker(session)
            cutter.check()
        await driver.accepted(2)
        assert len(await driver.claim(session)) == 2
        cutter.arm("resume_session")
        resumed = await driver.store.resume_session(session, b"digest")
        cutter.check()
        assert resumed is not None
        assert len(resumed.held) == 2
        cutter.arm("close_session")
        await driver.store.close_session(session, resumed.epoch)
        cutter.check()
        runs = await driver.claim()
        assert len(runs) == 2
        for run in runs:
            await driver.finish(run)


async def test_reap_and_promote(cutter: Cutter) -> None:
    driver = cutter.driver
    for i in range(CUTS):
        session = f"s{i}"
        await driver.worker(session)
        await driver.accepted(2, max_lost=0)
        assert len(await driver.claim(session)) == 2
        await driver.tick()
        driver.end_lease(session)
        cutter.arm("reap")
        await driver.reap()
        cutter.check()
        (delayed,) = await driver.accepted(countdown_seconds=99)
        driver.make_due(delayed)
        cutter.arm("promote")
        await driver.store.promote()
        cutter.check()
        (run,) = await driver.claim()
        assert run.run_id == delayed
        await driver.finish(run)
    assert len(await driver.store.dead_list(CUTS * 3)) == CUTS * 2


async def test_disconnect(cutter: Cutter) -> None:
    driver = cutter.driver
    for _ in range(CUTS):
        assert (await driver.store.renew("w1", 1, [])).status == "ok"
        cutter.arm("disconnect")
        await driver.store.disconnect("w1", 1)
        cutter.check()
        (session,) = await driver.store.sessions()
        assert 0 < session["expires_in_seconds"] <= 0.5


async def test_the_dead(cutter: Cutter) -> None:
    """A repeat of the same request is told the same; another request is not."""
    driver = cutter.driver
    for i in range(CUTS):
        session = f"s{i}"
        await driver.worker(session)
        replayed, dropped = await driver.accepted(2, max_lost=0)
        assert len(await driver.claim(session)) == 2
        await driver.tick()
        driver.end_lease(session)
        assert len(await driver.reap()) == 2
        for script, ask, run_id in (
            ("dead_replay", driver.store.dead_replay, replayed),
            ("dead_drop", driver.store.dead_drop, dropped),
        ):
            cutter.arm(script)
            assert await ask(run_id)
            cutter.check()
            assert not await ask(run_id)
        (run,) = await driver.claim()
        assert run.run_id == replayed
        await driver.finish(run)
    assert await driver.store.dead_list(10) == []


async def test_retention(cutter: Cutter) -> None:
    driver = cutter.driver
    for _ in range(CUTS):
        first, second = await driver.accepted(2)
        await driver.cancel(first)
        cutter.arm("retention")
        assert await driver.store.retention() in (0, 1)
        cutter.check()
        assert (await driver.store.stats())["queues"][0]["length"] == 1
        (run,) = await driver.claim()
        assert run.run_id == second
        await driver.finish(run)


async def test_log(cutter: Cutter) -> None:
    """Lines may be doubled; none is missing, and the order stays."""
    driver = cutter.driver
    (run_id,) = await driver.accepted()
    lines: list[list[Any]] = []
    for i in range(CUTS):
        cutter.arm("log")
        driver.store.log(run_id, [[20, i, "prefect_lite", "line"]])
        lines = await driver.store.read_log(run_id)
        cutter.check()
        assert lines[-1][1] == i
    numbers = [line[1] for line in lines]
    assert sorted(set(numbers)) == list(range(min(numbers), CUTS))


async def test_everything_at_once_under_cuts(cutter: Cutter) -> None:
    """Full lives, with the connection cut at any moment."""
    driver, proxy = cutter.driver, cutter.proxy
    ids: list[str] = []
    done: list[str] = []
    for i in range(CUTS):
        if i % 2:
            proxy.cut_next_reply()
        else:
            proxy.cut_next_request()
        ids += await driver.accepted(4)
        runs = await driver.claim(limit=3)
        proxy.cut()
        for run in runs:
            driver.started(run)
        for reply in [await driver.finish(run) for run in runs]:
            assert reply.status in ("ok", "already")
            done.append(reply.run_id)
    while runs := await driver.claim(limit=100):
        done += [(await driver.finish(run)).run_id for run in runs]
    assert sorted(done) == sorted(ids)
    assert set(driver.audit().values()) == {"c"}
