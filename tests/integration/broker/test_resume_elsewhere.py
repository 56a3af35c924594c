"""A worker that goes to another broker keeps its leases; the broker it left claims nothing more for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prefect_lite_broker.store import ClaimReply

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.messages import (
    PROTOCOL_MINOR,
    Done,
    Error,
    Finish,
    Hello,
    Message,
    Ready,
    Renew,
    Revoke,
    Run,
    RunState,
    Serve,
    Welcome,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import TOKENS, RawPeer, dial
from tests.tools.proxy import Proxy
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

MakeProxy = Callable[[Bench], Awaitable[Proxy]]
SHARDS = pytest.mark.parametrize("shards", [1, 4])


@pytest.fixture
async def make_proxy() -> AsyncIterator[MakeProxy]:
    """Puts a proxy before the first broker of a bench."""
    proxies: list[Proxy] = []

    async def make(bench: Bench) -> Proxy:
        proxy = Proxy(bench.brokers[0].addresses[0].removeprefix("ws+unix://"))
        await proxy.start(str(bench.directory / "proxy.sock"))
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        await proxy.close()


async def worker_behind(bench: Bench, proxy: Proxy, limit: int) -> tuple[RawPeer, Welcome]:
    peer = RawPeer(await dial(f"ws+unix://{proxy.address}", token=TOKENS["worker"]))
    bench.peers.append(peer)
    welcome = await peer.hello("worker", bench.namespace)
    await peer.serve("tasks.add", limit=limit)
    return peer, welcome


async def resume(bench: Bench, broker: int, welcome: Welcome, epoch: int = 0) -> tuple[RawPeer, Welcome]:
    peer = await bench.stranger("worker", broker)
    await peer.send(Hello(PROTOCOL_MINOR, "worker", bench.namespace, welcome.session, welcome.secret, epoch))
    return peer, await peer.expect(Welcome)


class Claims:
    """What the store answers to the claims that one broker makes from now on."""

    def __init__(self, bench: Bench, broker: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replies: list[ClaimReply] = []
        store: Any = bench.brokers[broker]._store
        claim = store.claim

        def listen(*args: Any) -> None:
            done = args[-1]

            def answered(reply: ClaimReply) -> None:
                self.replies.append(reply)
                done(reply)

            claim(*args[:-1], answered)

        monkeypatch.setattr(store, "claim", listen)

    @property
    def runs(self) -> int:
        return sum(len(reply.runs) for reply in self.replies)


def workers_at(bench: Bench, broker: int) -> int:
    hub = bench.brokers[broker]._hub
    assert hub is not None
    return len(hub.workers)


def finishes(runs: list[Run]) -> list[Message]:
    return [Finish(run.run_id, run.token, "COMPLETED", "", "", run.attempt, 0.0, b"r") for run in runs]


async def done_at(peer: RawPeer, count: int) -> set[str]:
    """The statuses in so many answers."""
    answers: list[list[str]] = []
    while len(answers) < count:
        answers += (await peer.expect(Done)).answers
    return {status for _, _, status in answers}


@SHARDS
@pytest.mark.parametrize("credit", [0, 4])
async def test_the_broker_behind_a_black_hole_claims_nothing_more(
    make_bench: BenchMaker, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, shards: int, credit: int
) -> None:
    bench = await make_bench(shards=shards, lease_seconds=2.0, renew_seconds=0.5)
    await bench.broker()
    await bench.broker()
    proxy = await make_proxy(bench)
    first, welcome = await worker_behind(bench, proxy, limit=6 + credit)
    client = await bench.client(broker=1)
    ids = {await client.submit(watch=True) for _ in range(6)}
    runs = await first.runs(6)
    proxy.black_hole()

    second, resumed = await resume(bench, 1, welcome)
    # Not before: a poll may come then, and be told that there is nothing.
    claims = Claims(bench, 0, monkeypatch)
    assert resumed.resumed
    assert {run_id for run_id, _ in resumed.held} == ids
    await second.send(Renew(0, [[run.run_id, run.token] for run in runs]), Serve(["tasks.add"]), Ready(20))
    later = {await client.submit(watch=True) for _ in range(20)}
    more = await second.runs(20)
    assert {run.run_id for run in more} == later, "none was claimed elsewhere"
    await second.send(Renew(20, [[run.run_id, run.token] for run in (*runs, *more)]))

    async with second.beating(0.4, [*runs, *more]), client.beating(0.4):
        await until(lambda: workers_at(bench, 0) == 0, 6.0, "the end of the socket at the first broker")
    assert claims.runs == 0
    assert {reply.status for reply in claims.replies} <= {"moved"}
    assert claims.replies if credit else True, "with credit it asked, and was told"
    hub = bench.brokers[0]._hub
    assert hub is not None
    assert not hub.dispatch._queues, "the credit is forgotten"

    await second.send(*finishes([*runs, *more]))
    assert await done_at(second, 26) == {"ok"}
    for _ in range(26):
        state = await client.expect(RunState)
        assert (state.type, state.attempt, state.lost) == ("COMPLETED", 1, 0)


@SHARDS
async def test_runs_that_never_reached_the_worker_come_again_at_once(
    make_bench: BenchMaker, make_proxy: MakeProxy, shards: int
) -> None:
    bench = await make_bench(shards=shards, lease_seconds=30.0, renew_seconds=5.0)
    await bench.broker()
    await bench.broker()
    proxy = await make_proxy(bench)
    first, welcome = await worker_behind(bench, proxy, limit=30)
    client = await bench.client(broker=1)
    got = await client.submit()
    (kept,) = await first.runs(1)
    proxy.black_hole("down")
    ids = {await client.submit() for _ in range(20)}
    with bench.redis() as redis:
        held = lambda: sum(  # noqa: E731
            int(redis.hlen(f"pl:{{{bench.namespace}:{shard}}}:h:{welcome.session}"))  # type: ignore[arg-type]
            for shard in range(shards)
        )
        await until(lambda: held() == 21, what="leases in the dead broker's socket")
    second, resumed = await resume(bench, 1, welcome)
    assert {run_id for run_id, _ in resumed.held} == {got, *ids}
    begun = asyncio.get_running_loop().time()
    await second.send(Renew(0, [[kept.run_id, kept.token]]), Serve(["tasks.add"]), Ready(30))
    again = await second.runs(20)
    assert asyncio.get_running_loop().time() - begun < 2.0, "not after the lease"
    assert {run.run_id for run in again} == ids
    assert {run.lost for run in again} == {0}
    await second.send(*finishes([kept, *again]))
    assert await done_at(second, 21) == {"ok"}


@SHARDS
async def test_runs_whose_claim_was_never_answered_come_again_at_once(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """As when the broker dies between Redis's work and its answer."""
    bench = await make_bench(shards=shards, lease_seconds=30.0, disconnect_grace_seconds=30.0)
    await bench.broker()
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    store: Any = bench.brokers[0]._store
    claim, answers = store.claim, list[ClaimReply]()
    monkeypatch.setattr(store, "claim", lambda *args: claim(*args[:-1], answers.append))
    client = await bench.client(broker=1)
    ids = {await client.submit() for _ in range(8)}
    await worker.serve("tasks.add", limit=20)
    await until(lambda: any(reply.runs for reply in answers), what="a claim")
    worker.drop()
    second, resumed = await resume(bench, 1, welcome)
    assert {run.run_id for reply in answers for run in reply.runs} <= {run_id for run_id, _ in resumed.held}
    await second.send(Renew(0, []), Serve(["tasks.add"]), Ready(20))
    runs = await second.runs(8)
    assert {run.run_id for run in runs} == ids
    assert {run.lost for run in runs} == {0}
    await second.send(*finishes(runs))
    assert await done_at(second, 8) == {"ok"}


async def test_a_late_resume_of_nobody_leaves_the_lease_to_who_is_there(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection it overtakes hears of it with its next RENEW, which may come after the grace."""
    bench = await make_bench(lease_seconds=30.0, renew_seconds=10.0)
    await bench.broker()
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    await worker.serve("tasks.add", limit=3)
    client = await bench.client(broker=1)
    await client.submit()
    (run,) = await worker.runs(1)
    store: Any = bench.brokers[0]._store
    resume_session = store.resume_session
    asked, go, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(*args: Any) -> Any:
        asked.set()
        await go.wait()
        try:
            return await resume_session(*args)
        finally:
            over.set()

    monkeypatch.setattr(store, "resume_session", late)
    worker.drop()
    nobody = await bench.stranger("worker")
    await nobody.send(Hello(PROTOCOL_MINOR, "worker", bench.namespace, welcome.session, welcome.secret))
    await asked.wait()
    nobody.drop()
    second, _ = await resume(bench, 1, welcome)
    await second.send(Renew(0, [[run.run_id, run.token]]))
    await second.expect(Revoke)
    hub = bench.brokers[0]._hub
    assert hub is not None
    await until(lambda: len(hub.peers) == 0, what="the end of the connection")
    go.set()
    await over.wait()
    await until(lambda: not hub._tasks, what="the rest of it")
    with bench.redis() as redis:
        seconds, _ = redis.time()  # type: ignore[misc]
        deadline = redis.zscore(f"pl:{{{bench.namespace}:0}}:sessions", welcome.session)
    assert deadline / 1000 - seconds > 20.0, "its whole lease"  # type: ignore[operator]
    await second.send(Renew(0, [[run.run_id, run.token]]))
    assert await second.closed() == 4001
    third, resumed = await resume(bench, 1, welcome)
    assert resumed.held == [[run.run_id, run.token]]
    await third.send(*finishes([run]))
    assert await done_at(third, 1) == {"ok"}


async def test_a_resume_cut_between_two_shards_is_completed_elsewhere(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_bench(shards=4, lease_seconds=30.0)
    await bench.broker()
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    await worker.serve("tasks.add", limit=12)
    client = await bench.client(broker=1)
    ids = {await client.submit() for _ in range(12)}
    runs = await worker.runs(12)
    store: Any = bench.brokers[0]._store
    script = store.script

    async def cut(name: str, shard: int, *args: Any) -> Any:
        if name == "resume_session" and shard >= 2:
            raise StoreUnavailable("cut")
        return await script(name, shard, *args)

    monkeypatch.setattr(store, "script", cut)
    worker.drop()
    half = await bench.stranger("worker")
    await half.send(Hello(PROTOCOL_MINOR, "worker", bench.namespace, welcome.session, welcome.secret))
    assert (await half.expect(Error)).code == "unavailable"
    second, resumed = await resume(bench, 1, welcome)
    assert resumed.resumed
    assert {run_id for run_id, _ in resumed.held} == ids
    await second.send(Renew(0, [[run.run_id, run.token] for run in runs]), *finishes(runs))
    assert await done_at(second, 12) == {"ok"}


async def test_two_resumes_at_once_leave_one_connection(make_bench: BenchMaker) -> None:
    bench = await make_bench(shards=4, lease_seconds=30.0)
    await bench.broker()
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    await worker.serve("tasks.add", limit=8)
    client = await bench.client()
    ids = {await client.submit() for _ in range(8)}
    await worker.runs(8)
    for _ in range(10):
        peers = [await bench.stranger("worker", broker) for broker in (0, 1)]
        hello = Hello(PROTOCOL_MINOR, "worker", bench.namespace, welcome.session, welcome.secret)
        await asyncio.gather(*(peer.send(hello) for peer in peers))
        answers = await asyncio.gather(*(peer.expect(Welcome) for peer in peers), return_exceptions=True)
        welcomes = [answer for answer in answers if isinstance(answer, Welcome)]
        assert all(answer.resumed and answer.session == welcome.session for answer in welcomes)
        for peer in peers:  # RENEW tells who it was that came first
            if peer.ws.close_code is None:
                await peer.send(Renew(0, [[run_id, token] for run_id, token in welcomes[0].held]))
        if len(welcomes) == 2:
            assert welcomes[0].epoch != welcomes[1].epoch
    last, resumed = await resume(bench, 1, welcome)
    assert {run_id for run_id, _ in resumed.held} == ids
    await last.send(Renew(0, resumed.held))
    assert workers_at(bench, 1) == 1


async def test_who_has_nothing_to_resume_gets_a_new_session(make_bench: BenchMaker) -> None:
    bench = await make_bench(shards=4)
    await bench.broker()
    await bench.broker()
    first = await bench.worker()
    welcome = next(message for message in first.seen if isinstance(message, Welcome))
    guess, told = await resume(bench, 1, welcome._replace(secret=b"guessed" * 3))
    assert not told.resumed
    assert told.session != welcome.session
    assert told.held == []
    await guess.settle()
    unknown, told = await resume(bench, 1, welcome._replace(session="0" * 32))
    assert not told.resumed
    await unknown.settle()
    # An epoch is the broker's to give; what a peer says of it changes nothing.
    _, told = await resume(bench, 1, welcome, epoch=2**52)
    assert told.resumed
    assert told.epoch == welcome.epoch + 1
    assert await first.closed() == 4001


async def test_a_session_that_redis_has_lost_is_over(make_bench: BenchMaker) -> None:
    bench = await make_bench(lease_seconds=30.0)
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    await worker.serve("tasks.add", limit=3)
    client = await bench.client()
    await client.submit()
    (run,) = await worker.runs(1)
    with bench.redis() as redis:
        prefix = f"pl:{{{bench.namespace}:0}}:"
        redis.delete(prefix + f"s:{welcome.session}", prefix + f"h:{welcome.session}")
        redis.zrem(prefix + "sessions", welcome.session)
        redis.hset(prefix + f"r:{run.run_id}", mapping={"st": "R", "t": ""})
        redis.rpush(prefix + "ready:tasks.add:0", run.run_id)
        redis.zadd(prefix + "open", {"tasks.add:0": 1e14})
    await worker.send(Renew(1, [[run.run_id, run.token]]))
    assert await worker.closed() == 4002
    again, told = await resume(bench, 0, welcome)
    assert not told.resumed
    assert told.held == []
    await again.serve("tasks.add", limit=3)
    (second,) = await again.runs(1)
    assert (second.run_id, second.lost) == (run.run_id, 0)
    await again.send(*finishes([run, second]))
    assert await done_at(again, 2) == {"stale", "ok"}


async def test_a_session_of_another_namespace_is_not_resumed(make_bench: BenchMaker) -> None:
    bench, other = await make_bench(), await make_bench()
    await bench.broker()
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    peer = await bench.stranger("worker")
    await peer.send(Hello(PROTOCOL_MINOR, "worker", other.namespace, welcome.session, welcome.secret))
    assert (await peer.expect(Error)).code == "namespace"
    await worker.send(Renew(0, []))
    await worker.settle()
