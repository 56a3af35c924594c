"""States that tasks return, and objects with futures, on a worker: nothing is different there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from prefect_lite import PrefectFuture, quote, task
from prefect_lite.exceptions import CancelledRun, CrashedRun, FailedRun, UnfinishedRun
from prefect_lite.states import Cancelled, Completed, Crashed, Failed, Running
from prefect_lite.testing import test_harness as harness


@dataclass
class Box:
    inside: Any


class Model(BaseModel):
    inside: Any


RETURNED = {
    "failed": Failed(name="Odd", message="mm"),
    "with data": Failed(data=KeyError("k")),
    "named": Completed(name="Nice", message="ho", data=5),
    "empty": Completed(),
    "cancelled": Cancelled(message="can"),
    "crashed": Crashed(message="cr"),
    "several": [Completed(), Failed(message="in")],
    "not final": Running(),
}


@task
def give(name: str) -> Any:
    return RETURNED[name]


@task
def show(value: Any) -> str:
    return repr(value)


@task
def one() -> int:
    return 1


@pytest.fixture
def worker() -> Iterator[None]:
    with harness():
        yield


def ended(name: str) -> PrefectFuture[Any]:
    future = give.delay(name)
    future.wait(timeout=10)
    return future


@pytest.mark.usefixtures("worker")
def test_a_run_ends_in_the_state_that_it_returned() -> None:
    for name, state_name, message, error in (
        ("failed", "Odd", "mm", FailedRun),
        ("with data", "Failed", None, KeyError),
        ("cancelled", "Cancelled", "can", CancelledRun),
        ("crashed", "Crashed", "cr", CrashedRun),
        ("several", "Failed", "1/2 states failed.", FailedRun),
        ("not final", "Failed", "The run returned Running(), which is not final.", UnfinishedRun),
    ):
        future = ended(name)
        assert (future.state.name, future.state.message) == (state_name, message)
        with pytest.raises(error):
            future.result(timeout=10)
    named = ended("named")
    assert (named.state.name, named.state.message, named.result(timeout=10)) == ("Nice", "ho", 5)
    assert ended("empty").result(timeout=10) is None
    # What waits for it takes its data, or does not run.
    assert show.delay(ended("named")).result(timeout=10) == "5"
    child = show.delay(ended("failed"))
    child.wait(timeout=10)
    assert child.state.name == "UpstreamFailed"


@pytest.mark.usefixtures("worker")
def test_objects_that_hold_futures_get_results() -> None:
    future = one.delay()
    shown = show.delay([Box(future), Model(inside=[future]), {future: (future,)}])
    assert shown.result(timeout=10) == "[Box(inside=1), Model(inside=[1]), {1: (1,)}]"
    assert "PrefectDistributedFuture" in show.delay(quote(Box(future))).result(timeout=10)
