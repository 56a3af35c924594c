"""Hashes of values: equal ones are the same in every process, different ones are not."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import hashlib
import math
import operator
import os
import re
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PrivateAttr, SecretStr

from prefect_lite import task
from prefect_lite.exceptions import HashError
from prefect_lite.utilities.hashing import file_hash, hash_objects, stable_hash


@dataclasses.dataclass
class Point:
    x: int = 1
    y: int = 2

    @functools.cached_property
    def length(self) -> float:
        return math.hypot(self.x, self.y)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int


class Pair(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Mode(enum.Flag):
    A = 1
    B = 2


class Plain:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Own:
    """Has its say about what it is made of."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Own, (self.value,)


class Model(BaseModel):
    x: int = 1
    names: set[str] = set()
    word: SecretStr = SecretStr("")
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @functools.cached_property
    def double(self) -> int:
        return self.x * 2


def adding(number: int) -> Callable[[int], int]:
    return lambda x: x + number


def cyclic() -> list[Any]:
    inner: list[Any] = [1]
    outer = [inner, "x"]
    inner.append(outer)
    return outer


SAME: dict[str, Callable[[], Any]] = {
    "plain": lambda: [None, True, 1, 1.5, math.nan, 2j, "ä\ud800", b"x", bytearray(b"y")],
    "containers": lambda: {"a": [1, (2, 3)], 4: {5, 6}, "f": frozenset({"x", "y"})},
    "times": lambda: (
        datetime.date(2020, 1, 1),
        datetime.timedelta(1),
        datetime.datetime.now(datetime.UTC).tzinfo,
    ),
    "numbers": lambda: (Decimal("1.10"), Fraction(1, 3), 10**5000, -(10**5000)),
    "many digits": lambda: [10**5000],
    "names": lambda: (Path("/a"), uuid.UUID(int=7), re.compile("x+", re.I)),
    "enums": lambda: (Colour.RED, Mode.A | Mode.B),
    "dataclass": lambda: Point(3, 4),
    "slots": lambda: Slotted(3),
    "named tuple": lambda: Pair(1, 2),
    "object": lambda: Plain(a=1, b={"c", "d", "e"}),
    "bare object": object,
    "own reduction": lambda: Own(3),
    "model": lambda: Model(x=2, names={"a", "b", "c"}, word=SecretStr("w")),
    "classes": lambda: (Point, int, Colour),
    "functions": lambda: (len, adding, Point.__init__, "abc".upper, operator.itemgetter(1)),
    "partial": lambda: functools.partial(adding, number=3),
    "lambda": lambda: lambda x: x + 1,
    "closure": lambda: adding(3),
    "module": lambda: os,
    "collections": lambda: (
        collections.OrderedDict(a=1, b=2),
        collections.defaultdict(list, a=[1]),
        collections.Counter("hello"),
        collections.deque([1, 2], maxlen=3),
        MappingProxyType({"a": 1}),
        range(3),
        slice(1, 2),
        iter([1, 2]),
    ),
    "array": lambda: np.arange(6, dtype=np.float32).reshape(2, 3),
    "objects in an array": lambda: np.array([{"a"}, None], dtype=object),
    "number of numpy": lambda: np.int64(3),
    "exception": lambda: ValueError("x", 1),
    "task": lambda: a_task,
    "cycle": cyclic,
}
"""Made twice, and in two processes."""


@task
def a_task(x: int) -> int:
    return x


def hashes() -> dict[str, str | None]:
    return {name: hash_objects(make(), raise_on_failure=True) for name, make in SAME.items()}


def test_equal_values_have_one_hash() -> None:
    assert hashes() == hashes()


def test_hashes_are_the_same_in_another_process() -> None:
    code = "import tests.unit.sdk.test_hashing as module; print(module.hashes())"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        cwd=root,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == hashes()


def test_all_of_them_are_different() -> None:
    assert len(set(hashes().values())) == len(SAME)


DIFFERENT: list[list[Any]] = [
    [
        1,
        1.0,
        True,
        "1",
        b"1",
        1 + 0j,
        np.int64(1),
        Decimal(1),
        Fraction(1),
        [1],
        (1,),
        {1},
        frozenset({1}),
        {1: 1},
    ],
    [None, "None", False, 0, "", b"", [], (), {}, set(), frozenset(), bytearray()],
    [[1, 2], [2, 1], (1, 2), {1, 2}, [[1, 2]], [1, [2]], ["1, 2"], "[1, 2]"],
    [["a", "b"], ["ab", ""], ["a', 'b"], "ab"],
    [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}, [("a", 1)], Plain(a=1)],
    [{1: 2}, {"1": 2}],
    [Point(1, 2), Point(2, 1), {"x": 1, "y": 2}, Pair(1, 2), (1, 2)],
    [Slotted(1), Slotted(2)],
    [Own(1), Own(2)],
    [Colour.RED, Colour.BLUE, 1, "RED"],
    [Mode.A, Mode.B, Mode.A | Mode.B],
    [Model(x=1), Model(x=2), Model(word=SecretStr("a")), {"x": 1}],
    [collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1), {"a": 1, "b": 2}],
    [collections.Counter("ab"), {"a": 1, "b": 1}],
    [lambda x: x + 1, lambda x: x + 2, lambda y, z: y + 1],
    [adding(3), adding(4)],
    [functools.partial(adding, 3), functools.partial(adding, 4), adding],
    [len, "len", max],
    [int, "int", Point, Slotted],
    [Path("/a"), "/a", Path("/b")],
    [np.zeros(4), np.zeros((2, 2)), np.zeros(4, dtype=np.float32), np.ones(4), [0.0] * 4],
    [np.array([1, "1"], dtype=object), np.array(["1", 1], dtype=object)],
    [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), "2020-01-01"],
    [ValueError("x"), TypeError("x"), ValueError("y")],
]


@pytest.mark.parametrize("values", DIFFERENT, ids=lambda values: type(values[0]).__name__)
def test_different_values_have_different_hashes(values: list[Any]) -> None:
    assert len({hash_objects(value, raise_on_failure=True) for value in values}) == len(values)


def test_the_order_of_dicts_and_sets_does_not_count() -> None:
    words = [f"word {number}" for number in range(50)]
    assert hash_objects({*words}) == hash_objects({*reversed(words)})
    assert hash_objects(dict.fromkeys(words, 1)) == hash_objects(dict.fromkeys(reversed(words), 1))
    assert hash_objects([{"a": 1, "b": {2: 3, 4: 5}}]) == hash_objects([{"b": {4: 5, 2: 3}, "a": 1}])
    assert hash_objects(Plain(a=1, b=2)) == hash_objects(Plain(b=2, a=1))


def test_the_layout_of_an_array_does_not_count() -> None:
    array = np.arange(6).reshape(2, 3)
    assert hash_objects(array) == hash_objects(np.asfortranarray(array)) == hash_objects(array[::1].copy())


def test_frames_of_pandas() -> None:
    pd = pytest.importorskip("pandas")

    def frame() -> Any:
        columns = {"a": [1, 2, 3], "b": ["x", "y", None], "c": pd.Categorical(["u", "v", "u"])}
        return pd.DataFrame(columns)

    same = frame()
    in_pieces = pd.concat([same[["a"]], same[["b", "c"]]], axis=1)
    assert hash_objects(same) == hash_objects(frame()) == hash_objects(in_pieces)
    other = frame()
    other.loc[1, "a"] = 9
    different = [
        same,
        other,
        same.rename(columns={"a": "q"}),
        same.astype({"a": "int32"}),
        same.set_index("a"),
    ]
    different += [same[["b", "a", "c"]], same.iloc[::-1], same.c, same.c.cat.as_ordered(), same.c.astype(str)]
    assert len({hash_objects(value, raise_on_failure=True) for value in different}) == len(different)


def test_what_is_only_remembered_does_not_count() -> None:
    used, model = Point(3, 4), Model(x=3)
    assert used.length == 5
    assert model.double == 6
    assert hash_objects(used) == hash_objects(Point(3, 4))
    assert hash_objects(model) == hash_objects(Model(x=3))
    assert hash_objects(Model()) == hash_objects(Model(x=1)), "given or by default"


def test_a_part_may_be_in_many_places() -> None:
    shared = [1, {"x"}]
    assert hash_objects([shared, shared]) == hash_objects([[1, {"x"}], [1, {"x"}]])
    value: Any = ["leaf"]
    for _ in range(100):  # 2 ** 100 ways down
        value = [value, value]
    assert hash_objects(value) is not None


def test_cycles_are_told_apart() -> None:
    one: list[Any] = [1]
    one.append(one)
    two: list[Any] = [1, [1]]
    two[1].append(two)
    assert hash_objects(one) != hash_objects(two)
    assert hash_objects([one, one]) == hash_objects([one, one])


class Unwilling:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (threading.Lock(), "_thread.lock"),
        ([{"deep": (threading.Lock(),)}], "_thread.lock"),
        ((x for x in [1]), "generator"),
        (Plain(file=sys.stdout), "cannot pickle"),
        (Unwilling(), "not today"),
    ],
)
def test_what_is_tied_to_a_process_has_no_hash(value: Any, named: str) -> None:
    assert hash_objects(value) is None
    with pytest.raises(HashError, match="Unable to create a hash") as caught:
        hash_objects(value, raise_on_failure=True)
    assert named in str(caught.value)


def test_a_generator_is_not_used_up() -> None:
    numbers = (x for x in [1, 2])
    hash_objects(numbers)
    assert list(numbers) == [1, 2]


def test_values_that_are_nested_too_deeply_have_no_hash() -> None:
    value: list[Any] = []
    for _ in range(sys.getrecursionlimit()):
        value = [value]
    with pytest.raises(HashError, match="nested too deeply"):
        hash_objects(value, raise_on_failure=True)


def test_a_lambda_is_also_what_it_uses() -> None:
    def made(number: int) -> Any:
        space: dict[str, Any] = {"number": number}
        exec("used = lambda x: [x + number for _ in range(2)]", space)
        return space["used"]

    assert hash_objects(made(1)) == hash_objects(made(1))
    assert hash_objects(made(1)) != hash_objects(made(2))


def test_a_function_that_calls_itself() -> None:
    def down(x: int) -> int:
        return down(x - 1) if x else 0

    assert hash_objects(down) == hash_objects(down)


def test_classes_of_a_program_are_the_same_under_its_import_name(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        from prefect_lite import task
        from prefect_lite.utilities.hashing import hash_objects

        class Thing:
            pass

        def function():
            pass

        @task
        def of_the_program():
            pass

        def shown():
            return hash_objects(Thing(), Thing, function)

        if __name__ == "__main__":
            print(shown())
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

    def printed(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    assert printed("program.py") == printed("-c", "import program; print(program.shown())")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


@given(plain, plain)
def test_plain_values_have_one_hash_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert hash_objects(one) is not None
    assert (hash_objects(one) == hash_objects(other)) == (typed(one) == typed(other))


def typed(value: Any) -> Any:
    """Equal for values that are the same, their types included."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(item) for item in value]
    if isinstance(value, dict):
        return sorted((repr(typed(key)), repr(typed(item))) for key, item in value.items())
    return type(value).__name__, repr(value)


def test_values_by_name_are_not_values_by_position() -> None:
    assert hash_objects(x=1) == hash_objects(x=1)
    assert len({hash_objects(x=1), hash_objects({"x": 1}), hash_objects(y=1), hash_objects("x", 1)}) == 4
    assert hash_objects() == hash_objects()
    assert hash_objects() != hash_objects(None)


def test_another_algorithm() -> None:
    assert len(hash_objects(1) or "") == 32
    assert len(hash_objects(1, hash_algo=hashlib.sha256) or "") == 64


def test_stable_hash_is_that_of_prefect() -> None:
    assert stable_hash("a", "b") == stable_hash(b"ab") == hashlib.md5(b"ab").hexdigest()
    assert stable_hash() == "d41d8cd98f00b204e9800998ecf8427e"
    assert stable_hash("ä", hash_algo=hashlib.sha1) == hashlib.sha1("ä".encode()).hexdigest()


def test_file_hash_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    assert file_hash(path) == file_hash(str(path)) == hashlib.md5(path.read_bytes()).hexdigest()
    assert file_hash(str(path), hash_algo=hashlib.sha256) == hashlib.sha256(path.read_bytes()).hexdigest()
