"""How ``map`` turns one call into many."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_lite import Task, allow_failure, task, unmapped
from prefect_lite.exceptions import MappingLengthMismatch, MappingMissingIterable, ParameterBindError
from prefect_lite.mapping import expand


@task
def show(a: Any, b: Any = 0, *rest: Any, c: Any = 0, **more: Any) -> Any:
    return (a, b, rest, c, more)


class Box:
    @task
    def put(self, what: int) -> int:
        return what


def calls(*args: Any, task: Task[..., Any] = show, **kwargs: Any) -> list[Any]:
    return [(values, dict(named)) for values, named in expand(task, args, kwargs)]


def test_iterables_are_spread_and_constants_repeated() -> None:
    assert calls([1, 2], "ab") == [((1, "ab"), {}), ((2, "ab"), {})]
    assert calls(b"x", (1, 2), c=range(2)) == [((b"x", 1), {"c": 0}), ((b"x", 2), {"c": 1})]
    assert calls(a={1: "x"}, b=None) == [((), {"a": 1, "b": None})]
    assert calls(n for n in range(2)) == [((0,), {}), ((1,), {})]


def test_unmapped_goes_to_every_run() -> None:
    assert calls(unmapped([1, 2]), [3, 4]) == [(([1, 2], 3), {}), (([1, 2], 4), {})]
    assert calls([1, 2], more=unmapped("x")) == [((1,), {"more": "x"}), ((2,), {"more": "x"})]


def test_a_mark_stays_on_each_item() -> None:
    assert calls(allow_failure([1])) == [((allow_failure(1),), {})]
    assert calls([1], allow_failure(3)) == [((1, allow_failure(3)), {})]


def test_nothing_to_map_over_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(MappingMissingIterable, match=r"show.map\(\) got no iterable"):
        calls(1, "x")
    with pytest.raises(MappingLengthMismatch, match="argument 1: 2, c: 1"):
        calls([1, 2], c=[3])
    with pytest.raises(ParameterBindError):
        calls([1], a=[2])


def test_empty_iterables_map_to_nothing() -> None:
    assert calls([]) == []
    assert calls([], c=[]) == []


def test_a_bound_method_gives_its_instance_to_every_run() -> None:
    box = Box()
    assert calls([1, 2], task=box.put) == [((box, 1), {}), ((box, 2), {})]
