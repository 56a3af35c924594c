"""Every option that the specification lists exists where it is listed, with the default that is stated.

What each option does is in ``test_option_effects.py``.
"""

from __future__ import annotations

import inspect
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import Task, TaskOptions, task, tasks

LISTS: dict[int, dict[str, Any]] = {
    options["number"]: options
    for options in tomllib.loads((Path(__file__).parent / "options.toml").read_text())["options"]
}
DEFINITIONS: dict[str, Callable[..., Any]] = {
    "task": lambda **options: task(**options)(function),
    "Task": lambda **options: Task(function, **options),
    "Task.with_options": lambda **options: Task(function).with_options(**options),
}
OF_METHODS = [
    (number, name)
    for number, options in LISTS.items()
    if options["of"] not in DEFINITIONS
    for name in options["names"]
]
OF_DEFINITIONS = [
    (options["of"], name)
    for options in LISTS.values()
    if options["of"] in DEFINITIONS
    for name in options["names"]
    if name != "fn"
]
READ_AS = {
    "retries": 0,
    "retry_delay_seconds": 0,
    "tags": frozenset(),
    "name": "function",
    "description": "Of the function.",
    "asset_deps": [],
}
"""What a task shows for an option that was not given, or given as None, and is not None."""


def function() -> None:
    """Of the function."""


def accepted_by(found: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function or of one of its overloads, variadic ones with their stars."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    every = [*typing.get_overloads(inspect.unwrap(found)), found] if not inspect.isclass(found) else [found]
    return {
        stars.get(parameter.kind, "") + name: parameter
        for each in every
        for name, parameter in inspect.signature(each).parameters.items()
    }


def find(of: str) -> Any:
    found: Any = tasks
    for name in of.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("of", "name"), OF_DEFINITIONS)
def test_a_task_is_defined_with_the_option_and_without(of: str, name: str) -> None:
    """``None`` given is the same as not given."""
    assert name in TaskOptions.__annotations__
    for made in (DEFINITIONS[of](), DEFINITIONS[of](**{name: None})):
        assert getattr(made.options, name, None) in (None, (), 0, frozenset())
        if not name.startswith("on_"):
            assert getattr(made, name) == READ_AS.get(name)


@pytest.mark.parametrize("number", [number for number in LISTS if LISTS[number]["of"] in DEFINITIONS])
def test_stated_defaults_hold(number: int) -> None:
    options = LISTS[number]
    made = DEFINITIONS[options["of"]]()
    assert {name: repr(getattr(made.options, name)) for name in options["defaults"]} == options["defaults"]


@pytest.mark.parametrize("of", sorted(DEFINITIONS))
def test_editors_and_help_list_the_options(of: str) -> None:
    options = next(each for each in LISTS.values() if each["of"] == of)
    assert set(options["names"]) <= set(accepted_by(find(of)))


@pytest.mark.parametrize("number", sorted({number for number, _ in OF_METHODS}))
def test_a_method_takes_the_option(number: int) -> None:
    options = LISTS[number]
    found = find(options["of"])
    assert set(options["names"]) <= set(accepted_by(found))
    for name, parameter in inspect.signature(found).parameters.items():
        if name in options["names"] and options["of"] != "MaterializingTask":
            assert parameter.default in (None, False)


def test_new_tags_replace_the_old_ones() -> None:
    """As documented for ``with_options``: ignored, not merged."""
    assert task(tags={"a"})(function).with_options(tags={"b"}).tags == {"b"}
