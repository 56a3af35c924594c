"""The wall clocks of brokers decide nothing."""

from __future__ import annotations

import random
import time

import pytest

from prefect_lite.protocol.messages import Answer, Done, Finish, Query, Renew, Retry, Revoke, RunState
from tests.integration.broker.bench import BenchMaker

pytestmark = pytest.mark.anyio

DAY_SECONDS = 86_400.0


async def test_a_wall_clock_that_jumps_about_changes_nothing(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + random.uniform(-1, 1) * 30 * DAY_SECONDS)
    bench = await make_bench(lease_seconds=3.0)
    await bench.broker()
    await bench.broker()
    client, worker = await bench.client(broker=0), await bench.worker(broker=1)
    run_id = await client.submit(watch=True, countdown_seconds=0.1, expires_seconds=60.0)
    (run,) = await worker.runs(1)
    await worker.send(Renew(1, [[run.run_id, run.token]]))
    assert (await worker.expect(Revoke)).leases == []
    await worker.send(Retry(run.run_id, run.token, 0.1, 2))
    assert (await worker.expect(Done)).answers[0][2] == "ok"
    (again,) = await worker.runs(1)
    assert (again.run_id, again.attempt, again.lost) == (run_id, 2, 0)
    await worker.send(Finish(run_id, again.token, "COMPLETED", "", "", 2, 0.01, b"r"))
    state = await client.expect(RunState)
    assert (state.type, state.result, state.lost) == ("COMPLETED", b"r", 0)
    assert abs(state.ended_ms / 1000 - real()) < 60, "by the clock of Redis"
    await client.send(Query(5, "stats"))
    stats = (await client.expect(Answer, lambda answer: answer.request == 5)).value
    assert 0 <= stats["broker"]["up_seconds"] < 60
    assert stats["audit"]["repaired"] == 0
