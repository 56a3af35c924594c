"""Looking into collections and objects."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from prefect_lite import nesting
from prefect_lite.exceptions import ParameterTypeError
from prefect_lite.nesting import MAX_DEPTH, Replacement, find
from prefect_lite.utilities.annotations import quote, unmapped

Pair = namedtuple("Pair", "left right")


class Mark:
    """What is looked for."""

    def __repr__(self) -> str:
        return "MARK"


MARK = Mark()


@dataclass
class Plain:
    inside: Any
    made: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.made += "once"


@dataclass(frozen=True, slots=True)
class Frozen:
    inside: Any


class Model(BaseModel):
    inside: Any


VALUES = st.recursive(
    st.just(MARK) | st.integers() | st.text(max_size=3) | st.none() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(Plain, inner)
        | st.builds(Frozen, inner)
        | st.builds(lambda value: Model(inside=value), inner)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_every_mark_is_replaced_and_nothing_else_changes(value: Any) -> None:
    before = repr(value)
    replaced = Replacement((Mark,), lambda _: 0)(value)
    assert repr(replaced) == before.replace("MARK", "0")
    assert repr(value) == before
    assert type(replaced) is (int if value is MARK else type(value))
    assert bool(list(find((value,), (Mark,)))) == ("MARK" in before)
    assert Replacement((Mark,), lambda mark: mark)(value) is value


def test_kinds_are_kept() -> None:
    replaced = Replacement((Mark,), lambda _: 0)
    for value, expected in (
        ({MARK}, {0}),
        (frozenset([MARK]), frozenset([0])),
        ({MARK: MARK, "x": [MARK]}, {0: 0, "x": [0]}),
        (OrderedDict(b=MARK, a=1), OrderedDict(b=0, a=1)),
        (defaultdict(list, a=MARK), defaultdict(list, a=0)),
    ):
        assert replaced(value) == expected
        assert type(replaced(value)) is type(expected)
    assert replaced(Plain(MARK)).made == "once"
    for untouched in (deque([MARK]), iter([MARK]), Plain, {1: 2}.values(), object()):
        assert replaced(untouched) is untouched
        assert not list(find((untouched,), (Mark,)))


def test_a_kind_that_nobody_can_make_is_named() -> None:
    class Odd(tuple[Any, ...]):
        pass

    odd = Odd([1])
    assert Replacement((Mark,), lambda _: 0)(odd) is odd
    with pytest.raises(
        ParameterTypeError, match=r"Failed to resolve inputs: a Odd holds .*`quote` annotation"
    ):
        Replacement((Mark,), lambda _: 0)([Odd([MARK])])


def test_what_cannot_be_hashed_is_an_error_of_python() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        Replacement((Mark,), lambda _: [])({MARK})


def test_marks_are_looked_into_only_if_told() -> None:
    values = (unmapped([MARK]), quote(MARK))
    assert not list(find(values, (Mark,)))
    assert list(find(values, (Mark,), into=(unmapped,))) == [MARK]


def test_what_leads_back_to_itself_ends() -> None:
    ring = Plain(None)
    ring.inside = [ring, MARK, ring]
    assert list(find((ring,), (Mark,))) == [MARK]
    replaced = Replacement((Mark,), lambda _: 0)(ring)
    assert replaced.inside == [ring, 0, ring]


def test_what_is_reached_by_very_many_ways_is_looked_at_once() -> None:
    value: Any = [MARK]
    for _ in range(MAX_DEPTH - 2):
        value = [value, value]  # 2 ** 30 ways
    seen: list[Any] = []
    Replacement((Mark,), seen.append)(value)
    assert seen == [MARK]
    assert list(find((value,), (Mark,))) == [MARK]


def test_deeper_than_the_limit_is_not_looked() -> None:
    value: Any = MARK
    for _ in range(MAX_DEPTH):
        value = [value]
    assert list(find((value,), (Mark,))) == [MARK]
    assert list(find(([value],), (Mark,))) == []
    assert Replacement((Mark,), lambda _: 0)([value]) == [value]


class Leaf:
    """Holds nothing."""


class Proxy:
    """Stands for another object, as those of some libraries do."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def __class__(self) -> Any:
        return type(self._of)


def test_of_many_things_that_hold_nothing_one_of_each_type_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list of a million rows is no reason to wait for seconds."""
    looked: list[Any] = []
    items_of = nesting.items_of

    def noted(value: Any) -> Any:
        looked.append(value)
        return items_of(value)

    monkeypatch.setattr(nesting, "items_of", noted)
    many = [Leaf() for _ in range(1_000)]
    assert list(find([many, MARK], (Mark,))) == [MARK]
    assert looked == [many, many[0]]
    looked.clear()
    replacement = Replacement((Mark,), lambda _: 5)
    assert replacement([many, MARK, {"x": many[0]}]) == [many, 5, {"x": many[0]}]
    assert len(looked) == 4
    assert replacement(many) is many


def test_a_type_whose_objects_stand_for_others_is_looked_at_each_time() -> None:
    proxies = [Proxy(1), Proxy(MARK)]
    assert list(find(proxies, (Mark,))) == proxies[1:]
    assert Replacement((Mark,), lambda _: 5)(proxies) == [proxies[0], 5]
