"""Every signature that the specification prints: parameters in order, kinds, defaults, what comes back.

More keyword parameters than printed are allowed; one that has to be given is not. A printed ``__name`` means
positional-only, whatever the name.
"""

from __future__ import annotations

import inspect
import re
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import exponential_backoff, task, tasks

SIGNATURES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "signatures.toml").read_text())[
    "signature"
]
NUMBERS = {signature["number"]: signature for signature in SIGNATURES}

COROUTINE_FUNCTIONS = {"Task.create_run", "Task.create_local_run", "Task.aserve"}
"""As in Prefect 3.8; the specification does not print it."""

PROPERTIES = {"Task.ismethod", "Task.isclassmethod", "Task.isstaticmethod"}
"""Printed like methods; in Prefect they are read, not called."""

RETURNS_AT_AN_END = {"Task.serve", "Task.aserve"}
"""Printed as ``NoReturn``. Here they return on Ctrl-C, or after ``timeout``, which is given up by nobody."""

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional or keyword",
    inspect.Parameter.VAR_POSITIONAL: "variadic positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword only",
    inspect.Parameter.VAR_KEYWORD: "variadic keyword",
}


def find(of: str) -> Any:
    found: Any = tasks
    for name in of.split("."):
        found = inspect.getattr_static(found, name) if inspect.isclass(found) else getattr(found, name)
    return found


def function_of(of: str) -> Callable[..., Any]:
    found = find(of)
    return found.__func__ if isinstance(found, (classmethod, staticmethod)) else found


def printed(signature: dict[str, Any]) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for parameter in signature["parameters"]:
        private = parameter["name"].startswith("__")
        shown.append(
            ("" if private else parameter["name"], "positional only" if private else parameter["kind"])
        )
    return shown


def ours(parameter: inspect.Parameter) -> tuple[str, str]:
    positional_only = parameter.kind is parameter.POSITIONAL_ONLY
    return ("" if positional_only else parameter.name, KINDS[parameter.kind])


def returned(of: str) -> list[str]:
    """The return annotations of a function and of its overloads."""
    function = function_of(of)
    every = [function, *typing.get_overloads(inspect.unwrap(function))]
    return [str(getattr(each, "__annotations__", {}).get("return", "")) for each in every]


@pytest.mark.parametrize("number", [n for n in NUMBERS if NUMBERS[n]["of"] not in PROPERTIES])
def test_parameters_are_there(number: int) -> None:
    signature = NUMBERS[number]
    actual = list(inspect.signature(function_of(signature["of"])).parameters.values())
    wanted = printed(signature)
    found = [ours(parameter) for parameter in actual]
    assert [each for each in found if each in wanted] == wanted
    defaults = dict(zip(found, (parameter.default for parameter in actual), strict=True))
    for parameter, key in zip(signature["parameters"], wanted, strict=True):
        default = "default" in parameter and eval(parameter["default"])
        assert defaults[key] == (default if "default" in parameter else inspect.Parameter.empty)
    for parameter in actual:
        if ours(parameter) not in wanted:
            variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            assert variadic or parameter.kind is parameter.KEYWORD_ONLY, f"{parameter} comes in between"
            assert variadic or parameter.default is not parameter.empty, f"{parameter} has to be given"


@pytest.mark.parametrize(
    "number",
    [n for n in NUMBERS if NUMBERS[n]["of"] not in PROPERTIES | RETURNS_AT_AN_END],
)
def test_what_comes_back_is_what_is_printed(number: int) -> None:
    signature = NUMBERS[number]
    wanted = signature["returns"].partition("[")[0]
    if not wanted:  # of `task`, which comes back as a task or a decorator
        return
    texts = returned(signature["of"])
    if "fn" in inspect.signature(function_of(signature["of"])).parameters:  # a decorator
        assert texts == [str(function_of(signature["of"]).__annotations__["fn"])]
        return
    for name in {"Union": ("list", "PrefectFutureList"), "Optional": ("None",)}.get(wanted, (wanted,)):
        assert any(re.search(rf"\b{name}\b", text) for text in texts), (name, texts)


@pytest.mark.parametrize("of", ["Task.map", "Task.submit"])
def test_overloads_cover_functions_and_coroutine_functions(of: str) -> None:
    """For each printed overload there is one that takes such a task and gives such a future or state."""
    wanted = {
        ("Coroutine" in signature["parameters"][0]["annotation"], signature["returns"])
        for signature in SIGNATURES
        if signature["of"] == of and signature["parameters"][0].get("annotation") and signature["returns"]
    }
    covered: set[tuple[bool, str]] = set()
    for overload in typing.get_overloads(function_of(of)):
        hints = overload.__annotations__
        covered.add(
            (
                bool(re.search(r"\bCoro(utine)?\b", str(hints["self"]))),
                str(hints["return"]).replace("[T]", "[R]"),
            )
        )
    assert wanted <= covered


@pytest.mark.parametrize(
    "of",
    sorted({signature["of"] for signature in SIGNATURES if signature["of"].startswith("Task.")} - PROPERTIES),
)
def test_what_is_awaited(of: str) -> None:
    assert inspect.iscoroutinefunction(function_of(of)) == (of in COROUTINE_FUNCTIONS)


class Kinds:
    """Tasks of each kind."""

    @task
    def ismethod(self) -> None: ...

    @task
    @classmethod
    def isclassmethod(cls) -> None: ...

    @task
    @staticmethod
    def isstaticmethod() -> None: ...


@pytest.mark.parametrize("of", sorted(PROPERTIES))
def test_what_is_read(of: str) -> None:
    """Printed like a method, so it can be called as well."""
    name = of.partition(".")[2]
    for kind in ("ismethod", "isclassmethod", "isstaticmethod"):
        answer = getattr(getattr(Kinds(), kind), name)
        assert bool(answer) == answer() == (kind == name)


def test_backoff_doubles() -> None:
    """As documented: powers of two, from the factor on."""
    assert exponential_backoff(10)(4) == [10, 20, 40, 80]
    assert task(retries=3, retry_delay_seconds=exponential_backoff(backoff_factor=0.5))(
        len
    ).options.retry_delays() == (
        0.5,
        1,
        2,
    )


def test_a_callback_with_parameters_is_told_by_its_signature() -> None:
    is_one = tasks.TaskRunNameCallbackWithParameters.is_callback_with_parameters
    assert is_one(lambda parameters: "")
    assert not is_one(lambda: "")
