"""Runs that wait for others, with real brokers that are killed in the middle of their duty."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from prefect_lite.protocol.messages import Accepted, Done, Finish, Ready, Run, Submit
from tests.integration.broker.raw_peer import RawPeer, dial, new_id
from tests.integration.fleet import Fleet
from tests.tools.audit import audit
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.anyio

SHARDS = 4
FAMILIES = 100


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, shards=SHARDS, lease_seconds=30.0, renew_seconds=5.0, poll_seconds=0.2)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


class Crew:
    """Raw peers of a fleet: what they do is decided frame by frame."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.tokens = json.loads(fleet.paths.tokens.read_text())
        self.peers: list[RawPeer] = []

    async def join(self, role: str, broker: int) -> RawPeer:
        peer = RawPeer(await dial(self.fleet.urls[broker], token=self.tokens[role]))
        self.peers.append(peer)
        await peer.hello(role, self.fleet.env["PREFECT_LITE_NAMESPACE"])
        return peer


@pytest.fixture
async def crew(fleet: Fleet) -> AsyncIterator[Crew]:
    made = Crew(fleet)
    yield made
    for peer in made.peers:
        peer.drop()


def families() -> list[list[str]]:
    """Parent, child and grandchild, each."""
    return [[new_id() for _ in range(3)] for _ in range(FAMILIES)]


def submits(ids: list[list[str]]) -> list[Submit]:
    return [
        Submit(run_id, "tasks.add", b"", parents=family[:place])
        for place in range(3)
        for family in ids
        for run_id in family[place : place + 1]
    ]


async def submit(client: RawPeer, ids: list[list[str]]) -> None:
    """Until all are durable."""
    await client.send(*submits(ids))
    accepted: set[str] = set()
    while len(accepted) < 3 * FAMILIES:
        accepted.update((await client.expect(Accepted)).run_ids)


async def work(worker: RawPeer, count: int) -> list[str]:
    """Execute so many runs; returns their ids when all are committed."""
    runs = []
    for _ in range(count):
        run = await worker.expect(Run)
        runs.append(run.run_id)
        await worker.send(Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, b"result"))
    done = 0
    while done < count:
        answers = (await worker.expect(Done)).answers
        assert {answer[2] for answer in answers} == {"ok"}
        done += len(answers)
    return runs


def check(fleet: Fleet, ids: list[list[str]]) -> None:
    """All are completed, and no key of theirs stays but the records."""
    assert fleet.server is not None
    namespace = fleet.env["PREFECT_LITE_NAMESPACE"]

    def clean() -> bool:
        with fleet.server.client() as client:  # type: ignore[union-attr]
            names = {
                key.split(b":", 3)[3] for key in client.scan_iter(match=f"pl:{{{namespace}:*", count=1000)
            }
        return not any(
            name.startswith((b"blocked", b"needed:", b"deps:", b"unblock", b"orphans")) for name in names
        )

    wait_until(clean, 10.0, "nothing left of dependencies")
    states: dict[str, str] = {}
    with fleet.server.client() as client:
        for shard in range(SHARDS):
            states.update(audit(client, f"pl:{{{namespace}:{shard}}}:"))
    assert {states[run_id] for family in ids for run_id in family} == {"c"}


async def test_two_of_three_brokers_are_killed_at_their_duty(fleet: Fleet, crew: Crew) -> None:
    first, second = families(), families()
    # As soon as all are accepted: most are not registered with their parents yet.
    client = await crew.join("client", 0)
    await submit(client, first)
    fleet.kill_broker_at(0)
    doomed = await crew.join("worker", 1)
    await doomed.serve("tasks.add", limit=3 * FAMILIES)
    begun = time.monotonic()
    done = await work(doomed, 3 * FAMILIES)
    assert time.monotonic() - begun < 8
    assert sorted(done) == sorted(run_id for family in first for run_id in family)
    assert all(done.index(a) < done.index(b) < done.index(c) for a, b, c in first)
    # As soon as it has answered for the last parent: most children have not been told.
    client = await crew.join("client", 2)
    await submit(client, second)
    await doomed.send(Ready(4 * FAMILIES))
    parents = await work(doomed, FAMILIES)
    fleet.kill_broker_at(1)
    worker = await crew.join("worker", 2)
    await worker.serve("tasks.add", limit=2 * FAMILIES)
    begun = time.monotonic()
    done = parents + await work(worker, 2 * FAMILIES)
    assert time.monotonic() - begun < 8
    assert sorted(done) == sorted(run_id for family in second for run_id in family)
    check(fleet, first + second)
