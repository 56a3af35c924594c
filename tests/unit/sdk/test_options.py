"""Task options: one declaration, checked values, and what travels with a run."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from prefect_lite import options as module
from prefect_lite.exceptions import ConfigurationError, OptionNotPortable
from prefect_lite.options import Options, TaskOptions, applied, travelling


def test_the_typed_dict_and_the_dataclass_declare_the_same_options() -> None:
    names = {"State": Any}
    hints = get_type_hints(Options, vars(module) | names)
    assert {field.name for field in dataclasses.fields(Options)} == set(hints)
    assert hints == get_type_hints(TaskOptions, vars(module) | names)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("retries", -1, "retries must be a whole number"),
        ("retries", 1.5, "retries must be a whole number"),
        ("retries", True, "retries must be a whole number"),
        ("retry_delay_seconds", -1, "retry_delay_seconds must be a number"),
        ("retry_delay_seconds", [1, "2"], "retry_delay_seconds must be a number"),
        ("retry_delay_seconds", [1] * 51, "51 delays; at most 50"),
        ("retry_jitter_factor", -0.1, "retry_jitter_factor"),
        ("timeout_seconds", 0, "timeout_seconds must be a number above 0"),
        ("timeout_seconds", float("nan"), "timeout_seconds"),
        ("result_ttl_seconds", 0, "result_ttl_seconds"),
        ("max_lost", -1, "max_lost"),
        ("cache_expiration", 60, "cache_expiration must be a timedelta"),
        ("name", 3, "name must be a string"),
        ("tags", "blue", "tags must be a collection of strings"),
        ("tags", [1], "tags must be a collection of strings"),
        ("aliases", "old.key", "aliases must be a collection"),
        ("retry_condition_fn", 3, "retry_condition_fn must be callable"),
        ("cache_key_fn", "x", "cache_key_fn must be callable"),
        ("task_run_name", 3, "task_run_name must be"),
        ("on_failure", print, "on_failure must be a list of callables"),
        ("on_failure", [3], "on_failure must be a list of callables"),
    ],
)
def test_impossible_values_are_refused(option: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Options(**{option: value})


def test_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"no task option 'retrys'\. Did you mean 'retries'"):
        Options().changed({"retrys": 3})


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
