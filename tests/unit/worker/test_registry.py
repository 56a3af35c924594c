"""Tasks that a worker is given while it runs."""

from __future__ import annotations

import pytest
from prefect_lite_worker.registry import Registry

from prefect_lite import task
from prefect_lite.exceptions import ConfigurationError


@task(key="registry.one", aliases=["registry.old"])
def one() -> None: ...


@task(key="registry.one")
def one_anew() -> None: ...


@task(key="registry.two")
def two() -> None: ...


def test_a_registry_is_not_empty_unless_it_may_be() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Registry(())
    assert Registry((), may_be_empty=True).keys == []


def test_tasks_come_later_and_take_the_place_of_others() -> None:
    registry = Registry((), may_be_empty=True)
    registry.replace(one)
    registry.replace(two)
    assert registry.keys == ["registry.old", "registry.one", "registry.two"]
    registry.replace(one_anew)
    assert registry.get("registry.one") is one_anew
    assert registry.tasks == [two, one_anew]
