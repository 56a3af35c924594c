"""Exceptions that crossed a process boundary."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, cast

import pytest

from prefect_lite.encoding import encode
from prefect_lite.exceptions import RemoteError, RemoteTraceback, StoreUnavailable
from prefect_lite.remote_errors import describe, rebuild


class Plain(Exception):
    pass


class Odd(Exception):
    """Pickles, and then fails to load: ``args`` are not what ``__init__`` takes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.lock = threading.Lock()  # does not pickle at all


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return exc


def crossed(error: BaseException, *, pickle: bool = True) -> BaseException:
    description = describe(raised(error), allow_pickle=pickle)
    encode(description, allow_pickle=False)  # plain data
    return rebuild(description, allow_pickle=pickle)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        Plain("p"),
        Plain({1, 2}),
        StoreUnavailable("s"),
        TimeoutError(),
    ],
)
def test_the_original_type_comes_back(error: Exception) -> None:
    back = crossed(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in raised" in str(back.__cause__)


def test_a_class_with_its_own_init_comes_back_without_calling_it() -> None:
    back = crossed(Odd(404, "gone"))
    assert isinstance(back, Odd)
    assert str(back) == "404 gone"
    assert back.code == 404
    assert not hasattr(back, "lock")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    lock: Any = None


class MyImportError(ImportError):
    pass


def test_frozen_dataclasses_come_back() -> None:
    for error in (Frozen(3), Frozen(3, threading.Lock())):
        back = crossed(error)
        assert isinstance(back, Frozen)
        assert back.code == 3
        assert isinstance(back.__cause__, RemoteTraceback)


@pytest.mark.parametrize("pickle", [True, False])
def test_what_is_missing_is_still_named(pickle: bool) -> None:
    back = crossed(ModuleNotFoundError("No module named 'x'", name="x", path="/p"), pickle=pickle)
    assert isinstance(back, ModuleNotFoundError)
    assert (back.name, back.path) == ("x", "/p")
    for error in (AttributeError("a", name="n", obj=3), NameError("a", name="n")):
        named: Any = crossed(error, pickle=pickle)
        assert type(named) is type(error)
        assert named.name == "n"
    assert cast("Any", crossed(MyImportError("a", name="n"))).name == "n"


def test_groups_and_causes_come_back() -> None:
    group = crossed(ExceptionGroup("g", [ValueError("a"), Plain("b")]))
    assert isinstance(group, ExceptionGroup)
    assert [type(one) for one in group.exceptions] == [ValueError, Plain]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_would_end_the_caller_is_only_reported(error: BaseException) -> None:
    back = crossed(error)
    assert isinstance(back, RemoteError)
    assert back.type_name == type(error).__name__


def test_a_class_that_is_not_there_is_only_reported() -> None:
    description = describe(raised(Plain("p")), allow_pickle=True)
    description[6] = description[6].replace(b"Plain", b"Blain")
    back = rebuild(description, allow_pickle=True)
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith("test_remote_errors.Plain")
    assert back.remote_message == "p"
    assert "in raised" in back.remote_traceback


def test_without_pickle_builtins_come_back_and_others_are_reported() -> None:
    assert crossed(ValueError("x", (1,)), pickle=False).args == ("x", (1,))
    back = crossed(Plain("p"), pickle=False)
    assert isinstance(back, RemoteError)
    assert "Plain: p" in str(back)


@pytest.mark.parametrize("error", [Mute("m"), Plain("\ud800"), Plain(threading.Lock())])
def test_describing_never_fails(error: Exception) -> None:
    assert isinstance(crossed(error), type(error))


@pytest.mark.parametrize(
    "damaged", [None, 3, [], [1, 2], [1, "", "X", "m", "t", 9, b""], [1, "", "X", "m", "t", 1, b""]]
)
def test_damaged_descriptions_become_remote_errors(damaged: Any) -> None:
    assert isinstance(rebuild(damaged, allow_pickle=True), RemoteError)


def test_a_long_traceback_is_cut() -> None:
    back = crossed(Plain("x" * 200_000))
    assert len(str(back.__cause__)) < 80_000
    assert "characters left out" in str(back.__cause__)
