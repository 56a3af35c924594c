"""Runs that wait for others, with real brokers, workers and clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet
from tests.integration.harness import Running, wait_until

ENDS = ("COMPLETED", "FAILED", "CANCELLED")
"""How the runs of these tests may end; the clients' scripts say which ended how."""

TASKS = """
    import os
    import threading
    from collections import namedtuple

    from prefect_lite import task

    Pair = namedtuple("Pair", "left right")
    attempts = {}

    @task
    def one():
        return 1

    @task
    def add(x, y=0):
        return x + y

    @task
    def total(values):
        return sum(values)

    @task
    def show(value):
        return repr(value)

    @task
    def fail(*_):
        raise ValueError("on purpose")

    @task(retries=2, retry_delay_seconds=0.2)
    def flaky(key, values):
        attempts[key] = attempts.get(key, 0) + 1
        if attempts[key] < 2:
            raise ValueError("again")
        return sum(values)

    @task
    def large(size):
        return b"x" * size

    @task
    def length(*values):
        return sum(map(len, values))

    @task
    def hold(values, path):
        if os.path.exists(path):
            return sum(values)
        open(path, "w").close()
        threading.Event().wait()

    @task
    def down(depth):
        return 1 + down.delay(depth - 1).result(timeout=60) if depth else 0

    @task
    async def adown(depth):
        return 1 + await adown.delay(depth - 1) if depth else 0

    @task
    def waits(count):
        from prefect_lite.futures import as_completed, wait

        futures = [one.delay() for _ in range(count)]
        assert not wait(futures, timeout=60).not_done
        more = [add.delay(future, 1) for future in futures]
        values = [future.result() for future in as_completed(more, timeout=60)]
        return sum(values)
"""

CLIENT = """
    import time
    from prefect_lite import PrefectDistributedFuture, allow_failure, batch, quote, unmapped
    from prefect_lite.exceptions import UpstreamFailedRun
    from prefect_lite.run_ids import new_run_id
    from tasks import *

    def result(future):
        return future.result(timeout=60)

    def name(future):
        future.wait(60)
        return future.state.name

"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    made.write("tasks.py", TASKS)
    made.start_brokers()
    made.start_worker("tasks", "--limit", "10", urls=made.urls[1:])
    made.start_worker("tasks", "--limit", "10", urls=made.urls[:2])
    yield made
    print(made.logs())
    made.close()


def start(fleet: Fleet, name: str, script: str, urls: list[str] | None = None) -> Running:
    return fleet.start_client(fleet.write(f"{name}.py", CLIENT + script), urls=urls)


def run(fleet: Fleet, name: str, script: str, *, timeout: float = 30.0) -> None:
    """A client's script whose assertions hold, and a history that does."""
    client = start(fleet, name, script)
    assert client.wait(timeout) == 0, client.output
    print(client.output)
    fleet.check_history(ends=ENDS)


def test_shapes_of_graphs(fleet: Fleet) -> None:
    run(
        fleet,
        "shapes",
        """
    future = one.delay()
    for _ in range(50):
        future = add.delay(future, 1)
    assert result(future) == 51

    top = one.delay()
    assert result(add.delay(add.delay(top, 1), add.delay(top, 2))) == 5

    a, b, c = one.delay(), add.delay(1, 1), one.delay()
    nested = show.delay([a, (b, {"x": {c}}), Pair(a, [b])])
    assert result(nested) == "[1, (2, {'x': {1}}), Pair(left=1, right=[2])]"
    assert result(show.delay(quote([a]))) == repr([a])

    assert result(total.delay([add.delay(number) for number in range(20)])) == 190
    many = add.map(range(200), deferred=True)
    assert result(total.delay(many)) == sum(range(200))

    parent = one.delay()
    assert sum(add.map([parent] * 500, 1, deferred=True).result(timeout=60)) == 1000
    assert add.map(add.map(range(20), deferred=True), unmapped(parent), deferred=True).result(60) == [
        *range(1, 21)
    ]
    assert result(length.delay(large.delay(200_000), [large.delay(300_000)][0])) == 500_000
    with batch():
        futures = [one.delay()]
        for _ in range(20):
            futures.append(add.delay(futures[-1], 1))
    assert result(futures[-1]) == 21
    """,
    )


def test_waiting_for_runs_whose_results_are_not_taken(fleet: Fleet) -> None:
    run(
        fleet,
        "wait_for",
        """
    import time
    slow = add.apply_async((1, 1), countdown=0.5)
    began = time.monotonic()
    child = one.apply_async(wait_for=[slow], dependencies={"x": [slow, one.delay()]})
    mapped = add.map([1, 2], deferred=True, wait_for=[slow])
    assert time.monotonic() - began < 0.4
    assert child.state.is_scheduled()
    assert result(child) == 1 and mapped.result(60) == [1, 2]
    assert time.monotonic() - began >= 0.4

    late = one.apply_async(wait_for=[one.delay()], countdown=0.5)
    began = time.monotonic()
    assert result(late) == 1 and time.monotonic() - began >= 0.4
    first = one.apply_async(wait_for=[slow], idempotency_key="again")
    assert one.apply_async(wait_for=[slow], idempotency_key="again").task_run_id == first.task_run_id
    taken = add.apply_async((slow, 1), idempotency_key="taken")
    assert add.apply_async((slow, 1), idempotency_key="taken").task_run_id == taken.task_run_id
    assert result(taken) == 3
    """,
    )


def test_failing_parents(fleet: Fleet) -> None:
    run(
        fleet,
        "failing",
        """
    bad = fail.delay()
    chain = [add.delay(bad, 1)]
    for _ in range(5):
        chain.append(add.delay(chain[-1], 1))
    for before, future in zip([bad, *chain], chain):
        try:
            result(future)
        except UpstreamFailedRun as exc:
            assert str(before.task_run_id) in str(exc) or before.task_run_id.hex in str(exc), str(exc)
        else:
            raise AssertionError("it should not have run")
        assert (future.state.type, future.state.name) == ("FAILED", "UpstreamFailed")
    assert name(one.apply_async(wait_for=[bad])) == "UpstreamFailed"
    assert name(one.apply_async(wait_for=[one.delay(), fail.delay()])) == "UpstreamFailed"

    assert result(show.delay(allow_failure(bad))) == "ValueError('on purpose')"
    assert result(show.delay(allow_failure([bad, one.delay()]))) == "[ValueError('on purpose'), 1]"
    assert "UpstreamFailedRun" in result(show.delay(allow_failure(chain[0])))
    assert result(one.apply_async(wait_for=[allow_failure(fail.delay())])) == 1
    assert name(show.apply_async((allow_failure(bad),), wait_for=[bad])) == "UpstreamFailed"

    parent = one.apply_async(countdown=60)
    child, tolerant = add.delay(parent), show.delay(allow_failure(parent))
    other = one.apply_async(countdown=60)
    blocked = add.apply_async((other,))
    assert parent.cancel() and blocked.cancel() and other.cancel()
    assert name(child) == "UpstreamFailed" and name(blocked) == "Cancelled"
    assert "CancelledRun" in result(tolerant)
    """,
    )


def test_retries_find_the_results_again_and_parents_may_come_later(fleet: Fleet) -> None:
    run(
        fleet,
        "retries",
        """
    parents = [add.delay(number) for number in range(5)]
    children = [flaky.delay(new_run_id(), parents) for _ in range(10)]
    assert [result(child) for child in children] == [10] * 10
    assert any(child.state.state_details.attempt > 1 for child in children)

    run_id = new_run_id()
    child = add.delay(PrefectDistributedFuture(run_id), 1)
    more = show.delay(allow_failure(PrefectDistributedFuture(run_id)))
    try:
        child.result(timeout=0.3)
    except TimeoutError as exc:
        print(exc)
    else:
        raise AssertionError("its parent was not submitted yet")
    one.apply_async(run_id=run_id)
    assert result(child) == 2 and result(more) == "1"
    """,
    )


def test_the_client_may_leave_at_once(fleet: Fleet) -> None:
    client = start(
        fleet,
        "leaves",
        """
    import os, sys
    future = one.apply_async(countdown=0.3)
    for _ in range(30):
        future = add.delay(future, 1)
    print("last", future.task_run_id, flush=True)
    os._exit(0)
    """,
    )
    assert client.wait() == 0
    last = client.output.split("last ")[1].split()[0]
    run(fleet, "returns", f"\n    assert result(PrefectDistributedFuture('{last}')) == 31\n")


def test_brokers_killed_in_the_middle_of_a_chain(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    try:
        fleet.write("tasks.py", TASKS)
        fleet.start_brokers()
        for _ in range(2):
            fleet.start_worker("tasks", "--limit", "10")
        client = start(
            fleet,
            "killed",
            """
    began = time.monotonic()
    future = one.delay()
    for number in range(300):
        future = add.delay(future, 1)
        if number in (100, 200, 299):
            print("at", number, f"{time.monotonic() - began:.1f} s", flush=True)
    assert result(future) == 301
    print("all", f"{time.monotonic() - began:.1f} s", flush=True)
    """,
        )
        client.wait_for("at 100", 30)
        fleet.kill_broker_at(0)
        client.wait_for("at 200", 30)
        fleet.kill_broker_at(1)
        assert client.wait(60) == 0, client.output
        fleet.check_history(ends=ENDS)
    finally:
        print(fleet.logs())
        fleet.close()


# -- slots ------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Fleet]:
    """One broker; tests start their worker."""
    made = Fleet(tmp_path, brokers=1)
    made.write("tasks.py", TASKS)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


def test_nesting_deeper_than_the_slots(small: Fleet) -> None:
    small.start_worker("tasks", "--limit", "1")
    run(
        small,
        "nesting",
        """
    assert result(down.delay(20)) == 20
    assert result(adown.delay(20)) == 20
    assert result(waits.delay(5)) == 10
    """,
    )


def test_blocked_runs_hold_no_slot(small: Fleet) -> None:
    client = start(
        small,
        "blocked",
        """
    ids = [new_run_id() for _ in range(30)]
    children = [add.delay(PrefectDistributedFuture(run_id), 1) for run_id in ids]
    grandchildren = [add.delay(child, 1) for child in children]
    print("children", flush=True)
    assert result(one.delay()) == 1
    for run_id in ids:
        one.apply_async(run_id=run_id)
    assert [result(future) for future in grandchildren] == [3] * 30
    """,
    )
    client.wait_for("children")
    small.start_worker("tasks", "--limit", "1")
    assert client.wait(60) == 0, client.output
    small.check_history(ends=ENDS)


def test_after_a_worker_was_killed_the_results_are_fetched_again(small: Fleet) -> None:
    worker = small.start_worker("tasks", "--limit", "5")
    path = small.project / "held"
    client = start(
        small, "held", f"""
    assert result(hold.delay(add.map(range(5), deferred=True), {str(path)!r})) == 10
    """
    )  # fmt: skip
    wait_until(path.exists, 20, "the run's start")
    worker.kill()
    small.start_worker("tasks", "--limit", "5")
    assert client.wait(60) == 0, client.output
    small.check_history(ends=ENDS)


# -- large graphs -----------------------------------------------------------------------------------


@pytest.mark.chaos
def test_large_graphs(fleet: Fleet) -> None:
    run(
        fleet,
        "large",
        """
    import time

    def timed(what, began):
        print(f"{what}: {time.monotonic() - began:.2f} s", flush=True)

    began = time.monotonic()
    future = one.delay()
    for _ in range(1000):
        future = add.delay(future, 1)
    timed("chain of 1,000, submitted", began)
    assert future.result(timeout=120) == 1001
    timed("chain of 1,000", began)

    for count in (1_000, 10_000):
        began = time.monotonic()
        many = add.map(range(count), deferred=True)
        child = total.delay(many)
        timed(f"fan-in of {count:,}, submitted", began)
        assert child.result(timeout=120) == sum(range(count))
        timed(f"fan-in of {count:,}", began)

    began = time.monotonic()
    parent = one.apply_async(countdown=1)
    futures = add.map([parent] * 10_000, 1, deferred=True)
    timed("fan-out of 10,000, submitted", began)
    assert sum(futures.result(timeout=120)) == 20_000
    timed("fan-out of 10,000", began)
    """,
        timeout=400,
    )
