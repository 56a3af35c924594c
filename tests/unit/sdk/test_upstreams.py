"""Futures among arguments and in ``wait_for``, in every kind of collection."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest

from prefect_lite import PrefectFutureList, allow_failure, task
from prefect_lite.exceptions import ParameterTypeError, UpstreamFailedRun
from prefect_lite.local_runs import close_threads
from prefect_lite.upstreams import resolve, wait_all
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]

Pair = namedtuple("Pair", "left right")


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    close_threads()


@task
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@task
def show(value: Any) -> str:
    return repr(value)


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


def test_other_kinds_of_collections_with_futures_are_refused() -> None:
    future = add.submit(1)
    plain = OrderedDict(a=1)
    assert resolve((plain, future), {})[0][0] is plain
    with pytest.raises(ParameterTypeError, match="A OrderedDict among the arguments holds futures"):
        resolve((OrderedDict(a=[future]),), {})
    with pytest.raises(ParameterTypeError):
        show.submit(OrderedDict(a=future)).result(timeout=5)


def test_marks_and_nesting_count_in_wait_for() -> None:
    bad, good = fail.submit(), add.submit(1)
    wait_all([good, None, [good]])
    wait_all([allow_failure(bad), (one for one in [good])])
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
    assert broker.call_of(broker.submits[1]) == (([1, 1],), {"y": [5]}, {})
