"""QUERY ``advance``: only a broker of a test suite lets its time be turned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect_lite_broker import queries
from prefect_lite_broker.hub import Hub

pytestmark = pytest.mark.anyio


class _Store:
    def __init__(self) -> None:
        self.advanced: list[float] = []

    async def advance(self, seconds: float) -> None:
        self.advanced.append(seconds)


async def ask(arg: Any, *, test_clock: bool) -> tuple[bool, Any, list[float], list[float]]:
    store, poked = _Store(), list[float]()
    hub = SimpleNamespace(store=store, settings=SimpleNamespace(test_clock=test_clock), delayed=poked.append)
    ok, value = await queries.answer(cast("Hub", hub), "client", "advance", arg)
    return ok, value, store.advanced, poked


async def test_time_is_advanced_and_the_promoter_looks() -> None:
    assert await ask(60.5, test_clock=True) == (True, True, [60.5], [0.0])


async def test_any_other_broker_refuses() -> None:
    ok, value, advanced, _ = await ask(60, test_clock=False)
    assert not ok
    assert value[0] == "forbidden"
    assert "PREFECT_LITE_TEST_CLOCK" in value[1]
    assert not advanced


@pytest.mark.parametrize("arg", [-1, True, None, "60", 1e10, float("nan"), float("inf")])
async def test_what_is_no_time(arg: Any) -> None:
    ok, value, advanced, _ = await ask(arg, test_clock=True)
    assert not ok
    assert value[0] == "bad_argument"
    assert not advanced
