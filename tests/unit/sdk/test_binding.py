"""The quick check agrees with ``Signature.bind`` for every kind of function and call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite.binding import Binder
from prefect_lite.exceptions import ParameterBindError, ReservedArgumentError


def none() -> None: ...
def two(x: int, y: int) -> None: ...
def default(x: int, y: int = 1, z: int = 2) -> None: ...
def keyword_only(x: int, *, y: int) -> None: ...
def keyword_default(x: int, *, y: int = 1) -> None: ...
def positional_only(x: int, /, y: int) -> None: ...
def variadic(x: int, *args: int, y: int = 1, **kwargs: int) -> None: ...


FUNCTIONS = [none, two, default, keyword_only, keyword_default, positional_only, variadic]


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.just(0), max_size=4),
    st.dictionaries(st.sampled_from(["x", "y", "z", "w"]), st.just(0)),
)
def test_it_refuses_exactly_what_python_refuses(
    fn: Callable[..., Any], args: list[int], kwargs: dict[str, int]
) -> None:
    binder = Binder(fn, fn.__name__)
    try:
        binder.signature.bind(*args, **kwargs)
        problem = ""
    except TypeError as exc:
        problem = str(exc)
    if not problem:
        binder.check(tuple(args), kwargs)
        return
    with pytest.raises(ParameterBindError, match=fn.__name__) as caught:
        binder.check(tuple(args), kwargs)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["wait_for", "return_state"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ReservedArgumentError, match=name):
        Binder(eval(f"lambda {name}: None"), "f")


def test_parameters_are_named() -> None:
    assert Binder(variadic, "v").parameters((1, 2, 3), {"y": 4, "k": 5}) == {
        "x": 1,
        "args": (2, 3),
        "y": 4,
        "kwargs": {"k": 5},
    }


def test_builtins_without_a_signature_take_anything() -> None:
    Binder(max, "max").check((1, 2), {"key": None})
