"""Task options: one declaration, checked values, and what travels with a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from prefect_lite import Task, task
from prefect_lite import options as module
from prefect_lite.exceptions import ConfigurationError, OptionNotPortable, OptionTypeError
from prefect_lite.options import HOOKS, OPTION_NAMES, Options, TaskOptions, applied, travelling


def test_the_typed_dict_and_the_dataclass_declare_the_same_options() -> None:
    names = {"State": Any}
    hints = get_type_hints(Options, vars(module) | names)
    assert {field.name for field in dataclasses.fields(Options)} == set(hints)
    assert hints == get_type_hints(TaskOptions, vars(module) | names)


NAN = float("nan")


def _raising(_retries: int) -> list[float]:
    raise ZeroDivisionError("no delays")


# Where Prefect raises a TypeError too, and its tests look for words, these are the words.
WRONG_TYPES: dict[str, tuple[str, list[Any]]] = {
    "name": ("`name` must be a string", [3, b"x", ["a"]]),
    "description": ("`description` must be a string", [3]),
    "version": ("`version` must be a string", [3, 1.0]),
    "key": ("`key` must be a string", [3]),
    "result_storage_key": ("`result_storage_key` must be a string", [3]),
    "tags": ("`tags` must be a collection of strings", ["blue", b"blue", 3, [1], [None]]),
    "aliases": ("`aliases` must be a collection of strings", ["old.key", 3, [3]]),
    "retries": ("`retries` must be a whole number", [1.5, True, "3", [1], NAN]),
    "retry_delay_seconds": (
        "must be an int, float, list or callable",
        ["3", {1, 2}, timedelta(seconds=3), lambda _: "abc", lambda _: {1}],
    ),
    "retry_jitter_factor": ("`retry_jitter_factor` must be a number", ["x", True]),
    "retry_condition_fn": ("Expected `retry_condition_fn` to be callable, got", [3, "x", [print], True]),
    "timeout_seconds": ("`timeout_seconds` must be a number", ["5", True, timedelta(seconds=3)]),
    "log_prints": ("`log_prints` must be True or False", ["x", 3]),
    "cache_result_in_memory": ("`cache_result_in_memory` must be True or False", [1, "false"]),
    "task_run_name": ("Expected string or callable for 'task_run_name'; got", [3, b"x", ["a"], True]),
    "result_ttl_seconds": ("`result_ttl_seconds` must be a number", ["1", True]),
    "max_lost": ("`max_lost` must be a whole number", [1.5, "1"]),
    "stop_on_lost_contact": ("`stop_on_lost_contact` must be True or False", [1]),
    "persist_result": ("`persist_result` must be True or False", ["false", 1]),
    "refresh_cache": ("`refresh_cache` must be True or False", ["x"]),
    "result_storage": ("`result_storage` must be an object or its name", [3, True, b"x"]),
    "result_serializer": ("`result_serializer` must be an object or its name", [3]),
    "cache_policy": ("`cache_policy` must be a cache policy", [3, "x", object()]),
    "cache_key_fn": ("Expected `cache_key_fn` to be callable", [3, "x"]),
    "cache_expiration": ("`cache_expiration` must be a timedelta", [60, "x"]),
    "asset_deps": ("`asset_deps` must be a list of assets", ["s3://a/b", 3]),
    **{
        name: ("Expected (callables in|iterable for) '" + name + "'; got", [print, "x", 3, [3], [print, "x"]])
        for name in HOOKS
    },
}

IMPOSSIBLE: dict[str, tuple[str, list[Any]]] = {
    "retries": ("`retries` must be >= 0", [-1]),
    "retry_delay_seconds": (
        "`retry_delay_seconds` must be (>= 0|a finite number)",
        [-1, NAN, [-1], [1, NAN], float("inf"), lambda _: [-1], lambda _: -1],
    ),
    "retry_jitter_factor": ("`retry_jitter_factor` must be (>= 0|a finite)", [-1, -0.1, NAN, float("inf")]),
    "timeout_seconds": ("`timeout_seconds` must be (>= 0|a finite)", [-1, NAN, float("inf")]),
    "result_ttl_seconds": ("`result_ttl_seconds` must be > 0", [0, -1]),
    "max_lost": ("`max_lost` must be >= 0", [-1]),
}


def _cases(table: dict[str, tuple[str, list[Any]]]) -> list[Any]:
    return [
        pytest.param(name, value, words, id=f"{name}-{number}")
        for name, (words, values) in table.items()
        for number, value in enumerate(values)
    ]


def _ways(option: str, value: Any) -> list[Callable[[], Any]]:
    """All ways to give a task an option."""
    given: Any = {option: value}
    return [
        lambda: Options(**given),
        lambda: Task(len, **given),
        lambda: task(**given),
        lambda: task(len, **given),
        lambda: Task(len).with_options(**given),
    ]


@pytest.mark.parametrize(("option", "value", "words"), _cases(WRONG_TYPES))
def test_values_of_a_wrong_type_are_refused(option: str, value: Any, words: str) -> None:
    for give in _ways(option, value):
        with pytest.raises(OptionTypeError, match=words):
            give()


@pytest.mark.parametrize(("option", "value", "words"), _cases(IMPOSSIBLE))
def test_impossible_values_are_refused(option: str, value: Any, words: str) -> None:
    for give in _ways(option, value):
        with pytest.raises(ConfigurationError, match=words) as caught:
            give()
        assert not isinstance(caught.value, TypeError)


def test_every_option_is_in_the_tables() -> None:
    assert set(WRONG_TYPES) == OPTION_NAMES - {"viz_return_value"}  # which may be anything


@pytest.mark.parametrize("delays", [[1] * 51, lambda _: [1] * 51, range(60)])
def test_there_are_at_most_50_delays(delays: Any) -> None:
    for give in _ways("retry_delay_seconds", delays):
        with pytest.raises(ConfigurationError, match="Can not configure more than 50 retry delays per task"):
            give()
    assert len(Options(retry_delay_seconds=[1] * 50).retry_delays()) == 50


def test_what_the_callable_for_delays_raises_says_where_it_comes_from() -> None:
    for give in _ways("retry_delay_seconds", _raising):
        with pytest.raises(ZeroDivisionError, match="no delays") as caught:
            give()
        assert "retry_delay_seconds" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="positional argument"):
        Options(retry_delay_seconds=lambda: [1])  # type: ignore[arg-type,misc]


def test_an_unknown_option_names_the_nearest_one() -> None:
    for give in _ways("retrys", 3)[1:]:
        with pytest.raises(OptionTypeError, match=r"no task option 'retrys' .*Did you mean 'retries'"):
            give()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        task(nothing_like_it=1)  # type: ignore[call-overload]


def test_no_time_is_no_limit() -> None:
    assert Options(timeout_seconds=0).timeout_seconds is None


@pytest.mark.parametrize("option", sorted(OPTION_NAMES))
def test_none_is_the_default(option: str) -> None:
    assert Options(**{option: None}) == Options()


def test_collections_are_fixed() -> None:
    tags, hooks = ["a"], [print]
    options = Options(tags=tags, on_failure=hooks, aliases=["old"])
    tags.append("b")
    hooks.append(repr)
    assert options.tags == frozenset({"a"})
    assert options.on_failure == (print,)
    assert options.aliases == ("old",)


@pytest.mark.parametrize(
    ("delays", "listed"),
    [
        (None, (0.0,)),
        (2, (2.0,)),
        ([1, 2.5], (1.0, 2.5)),
        (lambda n: [float(n)] * n, (3.0, 3.0, 3.0)),
        (lambda n: n, (3.0,)),
        (lambda _: None, (0.0,)),
        ((1, 2), (1.0, 2.0)),
        ([], (0.0,)),
    ],
)
def test_retry_delays_are_listed(delays: Any, listed: tuple[float, ...]) -> None:
    assert Options(retries=3, retry_delay_seconds=delays).retry_delays() == listed


def test_changing_keeps_the_rest_and_none_means_none() -> None:
    options = Options(retries=3, timeout_seconds=5, version="1", on_commit=[print])
    changed = options.changed({"timeout_seconds": None})
    assert (changed.retries, changed.timeout_seconds, changed.version) == (3, None, "1")
    assert changed.on_commit == (print,)


def test_plain_options_travel_and_arrive_equal() -> None:
    changes = {
        "retries": 4,
        "retry_delay_seconds": [1, 2],
        "tags": {"b", "a"},
        "cache_expiration": timedelta(hours=1),
        "timeout_seconds": None,
        "on_failure": None,
        "key": "stays.here",
    }
    plain = travelling(changes, "t")
    assert "key" not in plain
    arrived = applied(Options(retries=1, timeout_seconds=9, on_failure=[print]), plain)
    wanted = Options(**{**changes, "key": None})
    assert arrived == dataclasses.replace(wanted, retry_delay_seconds=[1, 2])


def test_options_of_a_newer_version_are_left_out() -> None:
    assert applied(Options(), {"not_yet_invented": 1, "retries": 2}) == Options(retries=2)


@pytest.mark.parametrize(
    "changes", [{"on_failure": [print]}, {"retry_condition_fn": bool}, {"result_storage": object()}]
)
def test_callables_do_not_travel(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionNotPortable, match=next(iter(changes))):
        travelling(changes, "t")
