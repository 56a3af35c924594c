"""Futures among arguments and in ``wait_for``, in every kind of collection."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from prefect_lite import (
    PrefectDistributedFuture,
    PrefectFutureList,
    allow_failure,
    batch,
    quote,
    task,
    unmapped,
)
from prefect_lite.envelope import LinkedCall
from prefect_lite.exceptions import ParameterTypeError, SubmitError, UnfinishedRun, UpstreamFailedRun
from prefect_lite.local_runs import close_threads
from prefect_lite.placeholders import Upstream
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.checks import MAX_PARENTS
from prefect_lite.run_ids import new_run_id
from prefect_lite.states import Completed, Failed, Running
from prefect_lite.testing import eager
from prefect_lite.upstreams import UNSETTLED, resolve, wait_all
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True, slots=True)
class Box:
    inside: Any


@dataclass
class Node:
    inside: Any


class Model(BaseModel):
    inside: Any


class Counted(list[Any]):
    """A kind of list that somebody has derived."""


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    close_threads()


@task
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@task
def show(value: Any, *more: Any) -> str:
    return repr((value, *more)) if more else repr(value)


@task
def fail() -> None:
    raise ValueError("no")


def test_lists_of_futures_and_namedtuples_are_resolved() -> None:
    futures = PrefectFutureList([add.submit(1), add.submit(2)])
    (value,), _ = resolve((futures,), {})
    assert value == [1, 2]
    assert type(value) is list
    assert resolve((Pair(futures[0], [futures[1]]),), {})[0] == (Pair(1, [2]),)
    assert show.submit(futures).result(timeout=5) == "[1, 2]"


def test_arguments_that_hold_no_future_reach_the_task_as_they_are(broker: ScriptedBroker) -> None:
    kept: list[Any] = [{"x": [1]}]

    @task
    def same(one: Any, _: Any) -> bool:
        return one is kept

    assert same.submit(kept, add.submit(1)).result(timeout=5)
    assert same(kept, add.submit(1))
    (mixed, twice), _ = resolve(([kept, add.submit(1)], (kept, kept)), {})
    assert mixed == [kept, 1]
    assert mixed[0] is twice[0] is kept

    @task
    def gather(items: Any, more: Any) -> list[Any]:
        return [*items, more]

    assert gather.submit(iter([1, 2]), add.submit(3)).result(timeout=5) == [1, 2, 3]
    assert gather((one for one in (1, 2)), add.submit(3)) == [1, 2, 3]
    gather.delay(iter([1, 2]), far()[0])
    assert list(broker.call_of(broker.submits[0]).args[0]) == [1, 2]


class Twice(tuple[Any, ...]):
    """Nobody knows how to make another one."""


def test_kinds_that_nobody_can_make_are_refused_if_they_hold_futures() -> None:
    future = add.submit(1)
    plain = Twice([1])
    assert resolve((plain, future), {})[0][0] is plain
    with pytest.raises(ParameterTypeError, match=r"Failed to resolve inputs: a Twice .* `quote` annotation"):
        resolve((Twice([[future]]),), {})
    with pytest.raises(ParameterTypeError):
        show.submit(Twice([future])).result(timeout=5)
    assert resolve((quote(Twice([future])),), {})[0][0] == Twice([future])


def test_objects_and_derived_collections_are_looked_into() -> None:
    future = add.submit(1)
    for held, resolved in (
        (Box(future), Box(1)),
        (Box([1, {"x": future}]), Box([1, {"x": 1}])),
        (Model(inside=(future, Box(future))), Model(inside=(1, Box(1)))),
        (OrderedDict(a=[future]), OrderedDict(a=[1])),
        (Counted([future]), Counted([1])),
        (defaultdict(list, {"a": future}), defaultdict(list, {"a": 1})),
        ({future: "key"}, {1: "key"}),
        ({future}, {1}),
        (frozenset([future]), frozenset([1])),
    ):
        (value,), _ = resolve((held,), {})
        assert (value, type(value)) == (resolved, type(resolved))
        assert show(held) == show.submit(held).result(timeout=5) == repr(resolved)
        assert resolve((quote(held),), {})[0][0] is held
    (value,), _ = resolve((defaultdict(list, a=future),), {})
    assert value["b"] == []


def test_objects_that_lead_back_to_themselves_are_left() -> None:
    box = Node(None)
    box.inside = [box, add.submit(1)]
    (value,), _ = resolve((box,), {})
    assert value.inside[0] is box
    assert value.inside[1] == 1
    alone = Node(None)
    alone.inside = alone
    assert resolve((alone,), {})[0][0] is alone


def test_objects_with_futures_travel(broker: ScriptedBroker) -> None:
    future = far()[0]
    for value in (Box(future), Box([1, future]), Box(PrefectFutureList([future])), Model(inside=future)):
        show.delay([value])
        show.map([value], deferred=True)
    assert {one.parents[0] for one in broker.submits} == {future.task_run_id.hex}
    assert broker.call_of(broker.submits[0]).args == ([Box(strict(future))],)
    assert broker.call_of(broker.submits[-1]).args == (Model(inside=strict(future)),)
    sent = len(broker.submits)
    show.delay(quote(Box(future)))
    (value,) = broker.call_of(broker.submits[sent]).args
    assert (value.inside, broker.submits[sent].parents) == (future, [])
    show.delay(Box([1]), future)
    assert broker.call_of(broker.submits[sent + 1]).args == (Box([1]), strict(future))
    assert resolve((Box, add.submit(1)), {})[0] == (Box, 1), "a class is no instance"


def test_marks_and_nesting_count_in_wait_for() -> None:
    bad, good = fail.submit(), add.submit(1)
    wait_all([good, None, [good]])
    wait_all([allow_failure(bad), (one for one in [good])])
    wait_all((good, 5, "x", Completed()))
    for values in ([bad], [[bad]], [{"x": (good, bad)}], [(one for one in [bad])], {1: bad}.values()):
        with pytest.raises(UpstreamFailedRun):
            wait_all(values)
    assert add.submit(1, wait_for=[allow_failure(bad), [good]]).result(timeout=5) == 1  # type: ignore[call-overload]
    with pytest.raises(UpstreamFailedRun):
        add.submit(1, wait_for=[[bad]]).result(timeout=5)  # type: ignore[call-overload]


async def test_they_count_in_delay_too(broker: ScriptedBroker) -> None:
    bad, good = fail.submit(), add.submit(1)
    add.apply_async((1,), wait_for=[allow_failure(bad)], dependencies={"x": [[good]]})  # type: ignore[list-item]
    for conditions in ({"wait_for": [[bad]]}, {"dependencies": {"x": {"y": bad}}}):
        with pytest.raises(UpstreamFailedRun):
            add.apply_async((1,), **conditions)  # type: ignore[call-overload]
        with pytest.raises(UpstreamFailedRun):
            await add.aapply_async((1,), **conditions)  # type: ignore[call-overload]
    with pytest.raises(UpstreamFailedRun):
        add.map([1], deferred=True, wait_for=[[bad]])  # type: ignore[list-item]
    add.delay(PrefectFutureList([good, good]), y=[5])
    assert len(broker.submits) == 2
    assert broker.call_of(broker.submits[1])[:2] == (([1, 1],), {"y": [5]})


# -- runs on workers: nothing waits here ----------------------------------------------------------


def far(count: int = 1) -> list[PrefectDistributedFuture[Any]]:
    return [PrefectDistributedFuture(new_run_id()) for _ in range(count)]


def ids(futures: list[PrefectDistributedFuture[Any]]) -> list[str]:
    return [future.task_run_id.hex for future in futures]


def strict(future: PrefectDistributedFuture[Any]) -> Upstream:
    return Upstream(future.task_run_id.hex, False)


def tolerant(future: PrefectDistributedFuture[Any]) -> Upstream:
    return Upstream(future.task_run_id.hex, True)


def test_futures_become_placeholders_and_parents_in_every_kind_of_collection(broker: ScriptedBroker) -> None:
    a, b, c, d = far(4)
    show.delay([a, (b, {"x": {c}})])
    show.delay(value=Pair(PrefectFutureList([a]), unmapped(d)))
    show.delay(quote([a]))
    first, second, third = broker.submits
    assert broker.call_of(first).args == ([strict(a), (strict(b), {"x": {strict(c)}})],)
    assert sorted(first.parents) == sorted(ids([a, b, c]))
    assert broker.call_of(second).kwargs == {"value": Pair([strict(a)], strict(d))}
    assert second.parents == ids([a, d])
    assert third.parents == third.tolerated == []
    assert broker.call_of(third).args == ([a],)
    assert [type(broker.call_of(one)) is LinkedCall for one in broker.submits] == [True, True, False]


def test_what_may_fail_is_tolerated_unless_it_must_complete_too(broker: ScriptedBroker) -> None:
    a, b, c = far(3)
    add.delay(allow_failure(a), allow_failure([b]))  # type: ignore[arg-type]
    add.apply_async((allow_failure(a), 1), wait_for=[a, allow_failure(c)], dependencies={"x": {"y": (b,)}})  # type: ignore[list-item]
    one, other = broker.submits
    assert (one.parents, sorted(one.tolerated)) == ([], sorted(ids([a, b])))
    assert broker.call_of(one).args == (tolerant(a), [tolerant(b)])
    assert (sorted(other.parents), other.tolerated) == (sorted(ids([a, b])), ids([c]))
    assert broker.call_of(other).args == (tolerant(a), 1)


async def test_every_way_to_send_returns_before_the_parents_have_ended(broker: ScriptedBroker) -> None:
    a, b = far(2)
    add.delay(a)
    add.apply_async((a,), countdown=3)
    await add.adelay(a)
    await add.aapply_async((1,), wait_for=[a])
    add.map([a, b], unmapped(a), deferred=True)
    add.map([1, 2], deferred=True, wait_for=(one for one in [a, b]))
    with batch():
        add.delay(b)
    assert [one.parents for one in broker.submits] == [
        *[ids([a])] * 4, ids([a]), ids([b, a]), ids([a, b]), ids([a, b]), ids([b]),
    ]  # fmt: skip
    assert broker.watches == []


def test_local_futures_and_states_are_resolved_before_sending(broker: ScriptedBroker) -> None:
    a = far()[0]
    show.delay([add.submit(1), a, Completed(data=7), allow_failure(fail.submit())])
    (value,) = broker.call_of(broker.submits[0]).args
    assert value[:3] == [1, strict(a), 7]
    assert isinstance(value[3], ValueError)
    assert broker.submits[0].parents == ids([a])
    error = ValueError("no")
    show.delay(allow_failure(Failed(data=error)))
    assert isinstance(broker.call_of(broker.submits[1]).args[0], ValueError)
    for state in (Failed(data=error), Running()):
        with pytest.raises(
            UpstreamFailedRun, match="Upstream state did not reach a 'COMPLETED' state: it ended as"
        ):
            show.delay(state)
    with pytest.raises(UnfinishedRun):
        show.delay(allow_failure(Running()))
    with pytest.raises(UpstreamFailedRun):
        show.apply_async((1,), wait_for=[Failed()])  # type: ignore[list-item]
    assert len(broker.submits) == 2


def test_a_call_with_the_same_futures_has_the_same_fingerprint(broker: ScriptedBroker) -> None:
    a, b = far(2)
    for future, value in ((a, 1), (a, 1), (b, 1), (a, 2), (allow_failure(a), 1)):
        add.apply_async(([future], {"v": value}), idempotency_key="k")
    prints = [one.fingerprint for one in broker.submits]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_placeholders_need_no_pickle_and_are_named_when_something_else_does(broker: ScriptedBroker) -> None:
    a = far()[0]
    with pytest.raises(Exception, match=r"Argument 'y' of add\(\) can't be sent"):
        add.delay([a], threading.Lock())
    assert not broker.submits


@pytest.mark.parametrize("count", [1_000, MAX_PARENTS])
def test_a_run_may_wait_for_very_many(broker: ScriptedBroker, count: int) -> None:
    futures = far(count)
    show.delay(futures)
    show.apply_async((1,), wait_for=futures)
    for submit in broker.submits:
        assert submit.parents == ids(futures)
    assert broker.call_of(broker.submits[0]).args == ([strict(future) for future in futures],)


def test_one_more_is_refused_with_the_limit(broker: ScriptedBroker) -> None:
    with pytest.raises(
        SubmitError, match=r"waits for 10,001 other runs; at most 10,000 are possible"
    ) as caught:
        show.delay(far(MAX_PARENTS + 1))
    assert caught.value.code == "too_many_parents"
    assert not broker.submits


async def test_in_a_batch_a_future_is_settled_before_others_wait_for_it(broker: ScriptedBroker) -> None:
    existing = new_run_id()

    def accept(one: m.Submit) -> m.Message:
        known = bool(one.idempotency_key)
        return m.Accepted([], [[one.run_id, existing]]) if known else m.Accepted([one.run_id])

    broker.accept = accept
    with batch():
        parent = add.apply_async((1,), idempotency_key="k")
        add.delay(parent)
    async with batch():
        parent = add.apply_async((1,), idempotency_key="k")
        await add.aapply_async((1,), wait_for=[parent])
    assert [one.parents for one in broker.submits] == [[], [existing], [], [existing]]
    assert not UNSETTLED
    with batch():
        add.apply_async((1,), idempotency_key="k")
    assert not UNSETTLED, "nobody waited for it"


@pytest.mark.parametrize("isasync", [False, True])
async def test_what_waits_for_a_run_in_a_line_goes_out_after_it(
    broker: ScriptedBroker, isasync: bool
) -> None:
    """Else the broker would take it for unknown, should there be no room for it for a minute."""
    answers: list[str] = []

    def accept(one: m.Submit) -> m.Message:
        answers.append("child" if one.parents else "full" if len(answers) < 3 else "parent")
        full = m.Refused(one.run_id, "full", "Full.", 0.01)
        return full if answers[-1] == "full" else m.Accepted([one.run_id])

    broker.accept = accept
    with batch(queue_timeout=10):
        if isasync:
            await add.adelay(await add.adelay(1))
        else:
            add.delay(add.delay(1))
    assert answers == ["full", "full", "full", "parent", "child"]


# -- direct calls ---------------------------------------------------------------------------------


@task
async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def test_a_direct_call_waits_for_futures_here(broker: ScriptedBroker) -> None:
    first = add.delay(1)
    timer = threading.Timer(0.05, lambda: broker.end(first.task_run_id.hex, 10))
    timer.start()
    assert add([first], [add.submit(2)]) == [10, 2]
    assert await later({"x": add.submit(3)}) == {"x": 3}
    assert add(quote([first]), []) == [first]
    fails = later(fail.submit())
    with pytest.raises(UpstreamFailedRun):
        await fails
    timer.join()


def test_a_background_call_may_wait_for_one_future_alone() -> None:
    @task
    def give(x: int) -> int:
        return x

    with eager():
        first = give.delay(1)
        second = give.apply_async((2,), wait_for=first)  # type: ignore[arg-type]
        assert second.result() == 2
        assert second.state.is_completed()
