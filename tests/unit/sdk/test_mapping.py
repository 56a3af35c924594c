"""How ``map`` turns one call into many."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from prefect_lite import Task, allow_failure, quote, task, unmapped
from prefect_lite.exceptions import (
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    UpstreamTaskError,
)
from prefect_lite.local_runs import close_threads
from prefect_lite.mapping import expand
from prefect_lite.states import Completed, Failed


@task
def show(a: Any, b: Any = 0, *rest: Any, c: Any = 0, **more: Any) -> Any:
    return (a, b, rest, c, more)


@task
def same(value: Any) -> Any:
    return value


@task
def with_default(a: Any, b: Any = [7, 8]) -> Any:  # noqa: B006 (a static argument, although it is a list)
    return (a, b)


@task
def fail() -> None:
    raise ValueError("no")


@task
def fail_with(text: str) -> None:
    raise ValueError(text)


class Tens:
    """Iterable by its items only."""

    def __getitem__(self, index: int) -> int:
        if index > 1:
            raise IndexError
        return index * 10


class Columns:
    """Like an array."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Sized:
    def __len__(self) -> int:
        return 2


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    yield
    close_threads()


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


def test_kinds_of_iterables() -> None:
    assert calls({2: "x", 3: "y"}) == calls((2, 3)) == calls(frozenset([2, 3])) == calls(iter([2, 3]))
    assert calls(bytearray(b"ab")) == calls(memoryview(b"ab")) == [((97,), {}), ((98,), {})]
    assert calls(Tens()) == [((0,), {}), ((10,), {})]
    assert calls(Columns()) == calls([1, 2]), "as arrays and tables, whose truth and equality are no bool"
    assert calls(enumerate("x")) == [(((0, "x"),), {})]
    for constant in ("ab", b"ab", 5, None, Sized(), io.StringIO("a\nb"), int, object()):
        assert calls([1], constant) == [((1, constant), {})]
        with pytest.raises(MappingMissingIterable):
            calls(constant)


def test_an_iterable_s_own_error_is_not_taken_for_a_constant() -> None:
    class Broken:
        def __iter__(self) -> Any:
            raise TypeError("broken")

    with pytest.raises(TypeError, match="broken"):
        calls(Broken())


def test_futures_and_states_are_mapped_over_their_items() -> None:
    several, one, bad = same.submit([1, 2]), same.submit(3), fail.submit()
    assert calls(several) == calls(Completed(data=[1, 2])) == calls([1, 2])
    assert calls(same.submit({7: 1})) == [((7,), {})]
    assert calls([1, 2], one) == [((1, 3), {}), ((2, 3), {})]
    assert calls([one]) == [((one,), {})]
    assert calls([1], unmapped(several)) == [((1, several), {})]
    assert calls(allow_failure(several)) == [((allow_failure(1),), {}), ((allow_failure(2),), {})]
    for failed in (bad, Failed()):
        with pytest.raises(UpstreamTaskError, match="did not reach a 'COMPLETED' state"):
            calls(failed)
        with pytest.raises(MappingMissingIterable):
            calls(allow_failure(failed))
    with pytest.raises(MappingMissingIterable):
        calls(one)


def test_marks_on_what_is_mapped() -> None:
    assert calls(quote([1, 2])) == [((quote(1),), {}), ((quote(2),), {})]
    constant = allow_failure(unmapped([1, 2]))
    assert calls([1], constant) == [((1, allow_failure([1, 2])), {})]
    assert calls([1], unmapped(allow_failure([2]))) == [((1, allow_failure([2])), {})]
    generator = (n for n in range(2))
    assert calls([1, 2], unmapped(generator)) == [((1, generator), {}), ((2, generator), {})]
    with pytest.raises(MappingMissingIterable):
        calls(unmapped([1, 2]))


def test_what_the_runs_get_and_give() -> None:
    bad, good = fail.submit(), same.submit(3)
    assert show.map([1, 2], unmapped(good)).result()[1] == (2, 3, (), 0, {})
    assert same.map([good, [good], Completed(data=4)]).result() == [3, [3], 4]
    assert same.map(quote([good])).result() == [good]
    first, other = same.map([allow_failure(bad), good]).result()
    assert (type(first), other) == (ValueError, 3)
    states = same.map([bad, good], return_state=True)
    assert [state.name for state in states] == ["UpstreamFailed", "Completed"]
    for waits_for in (bad, [bad], {"a": bad}, [Failed()], iter([bad])):
        states = same.map([1, 2], wait_for=waits_for, return_state=True)
        assert [state.name for state in states] == ["UpstreamFailed"] * 2
    assert same.map([1, 2], wait_for=good).result() == [1, 2]
    assert same.map([1, 2], wait_for=[allow_failure(bad)]).result() == [1, 2]
    assert with_default.map([1, 2]).result() == [(1, [7, 8]), (2, [7, 8])]
    with pytest.raises(ValueError, match="no"):
        fail_with.map(["no", "never"]).result()
    errors = fail_with.map(["no"]).result(raise_on_failure=False)
    assert [str(error) for error in errors] == ["no"]


def test_nothing_to_map_over_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(
        MappingMissingIterable, match=r"No iterable parameters were received: show.map\(\) got none"
    ):
        calls(1, "x")
    with pytest.raises(
        MappingLengthMismatch, match=r"with different lengths: show.map\(\) got {'a': 2, 'c': 1}"
    ):
        calls([1, 2], c=[3])
    with pytest.raises(ParameterBindError):
        calls([1], a=[2])


def test_empty_iterables_map_to_nothing() -> None:
    assert calls([]) == []
    assert calls([], c=[]) == []


def test_a_bound_method_gives_its_instance_to_every_run() -> None:
    box = Box()
    assert calls([1, 2], task=box.put) == [((box, 1), {}), ((box, 2), {})]
