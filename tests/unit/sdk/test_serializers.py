"""Values to bytes and back by the serializers that users choose, and the register of their types."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
import uuid
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite.exceptions import ConfigurationError, OptionTypeError, SerializationError
from prefect_lite.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    resolve_serializer,
    serializer_from_spec,
    serializer_spec,
)


class Model(pydantic.BaseModel):
    number: int
    when: datetime.date = datetime.date(2020, 1, 2)


class StrictModel(pydantic.BaseModel, strict=True):
    when: datetime.date


@dataclasses.dataclass
class Data:
    model: Model
    names: list[str]


class Colour(enum.Enum):
    RED = "red"


class Outer:
    class Inner(pydantic.BaseModel):
        value: int


class OddError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}-{two}")


class WithSecret(pydantic.BaseModel):
    password: pydantic.SecretStr


class Untyped:
    pass


class ShoutSerializer(Serializer[str]):
    type: Literal["test-shout"] = "test-shout"
    times: int = 1

    def dumps(self, obj: str) -> bytes:
        return (obj.upper() * self.times).encode()

    def loads(self, blob: bytes) -> str:
        return blob.decode()


ALL = ("pickle", "json", "compressed/pickle", "compressed/json")

BOTH_WAYS: list[Any] = [
    None,
    1,
    1.5,
    "ü\ud800",
    [1, [2]],
    {"a": {"b": None}},
    {1, 2},
    frozenset({1}),
    b"text",
    b"\xff\x00",
    datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.UTC),
    datetime.date(2020, 1, 1),
    datetime.timedelta(days=1, microseconds=5),
    uuid.UUID(int=7),
    decimal.Decimal("1.50"),
    pathlib.Path("/a/b"),
    Colour.RED,
    1j,
    collections.deque([1]),
    Model(number=1),
    [Model(number=1), {"inner": Model(number=2)}],
    Data(Model(number=3), ["a"]),
    Outer.Inner(value=1),
    StrictModel(when=datetime.date(2021, 1, 1)),
    {"__class__": "builtins.set", "data": [1]},
    {"deep": [{"__class__": "no.such.module", "data": {"__exc_type__": "x", "message": ""}}]},
    {"__exc_type__": "builtins.ValueError", "message": "no error at all"},
]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("value", BOTH_WAYS, ids=lambda value: repr(value)[:40])
def test_values_come_back_as_they_were(kind: str, value: Any) -> None:
    serializer = resolve_serializer(kind)
    blob = serializer.dumps(value)
    assert type(blob) is bytes
    back = serializer.loads(blob)
    assert back == value
    assert type(back) is type(value)


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("__class__"), inner),
    max_leaves=10,
)


@given(_plain | st.fixed_dictionaries({"__class__": st.text(), "data": _plain}))
def test_json_gives_back_every_plain_value(value: Any) -> None:
    serializer = JSONSerializer[Any]()
    assert serializer.loads(serializer.dumps(value)) == value


def test_json_is_json() -> None:
    assert JSONSerializer[Any]().dumps({"a": [1, None]}) == b'{"a": [1, null]}'
    assert JSONSerializer[Any]().dumps(datetime.date(2020, 1, 1)) == (
        b'{"__class__": "datetime.date", "data": "2020-01-01"}'
    )
    assert JSONSerializer[Any]().loads(JSONSerializer[Any]().dumps((1, 2))) == [1, 2]
    assert math.isnan(JSONSerializer[Any]().loads(b"NaN"))


@pytest.mark.parametrize("error", [ValueError("boo", 3), KeyError("a"), OddError(1, 2)], ids=repr)
def test_exceptions_go_by_json_with_their_arguments(error: Exception) -> None:
    back = JSONSerializer[Any]().loads(JSONSerializer[Any]().dumps(error))
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


@pytest.mark.parametrize("value", [object(), Untyped(), threading.Lock(), range(3), {(1, 2): 3}, print])
def test_what_json_has_no_form_for_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match="JSON"):
        JSONSerializer[Any]().dumps([value])


def test_a_class_that_json_could_not_find_again_is_refused() -> None:
    class Local(pydantic.BaseModel):
        value: int = 1

    with pytest.raises(SerializationError, match=r"Local.* does not lead to it.*'pickle'"):
        JSONSerializer[Any]().dumps(Local())


@pytest.mark.parametrize("value", [pydantic.SecretStr("x"), [WithSecret(password=pydantic.SecretStr("x"))]])
def test_json_does_not_replace_secrets_by_asterisks(value: Any) -> None:
    with pytest.raises(SerializationError, match="holds a secret"):
        JSONSerializer[Any]().dumps(value)
    back = PickleSerializer[Any]().loads(PickleSerializer[Any]().dumps(value))
    assert back == value


def test_a_text_of_asterisks_is_no_secret() -> None:
    value = Data(Model(number=1), ["**********"])
    assert JSONSerializer[Any]().loads(JSONSerializer[Any]().dumps(value)) == value


@pytest.mark.parametrize(
    "blob",
    [
        b"garbage",
        b"\xff",
        b'{"__class__": "no.such.module.Thing", "data": 1}',
        b'{"__class__": "datetime.nothing", "data": 1}',
        b'{"__class__": "datetime.date", "data": "no date"}',
        b'{"__exc_type__": "builtins.dict", "message": "no exception"}',
    ],
)
def test_json_that_can_not_be_read_is_a_clear_error(blob: bytes) -> None:
    with pytest.raises(SerializationError, match=r"be read as JSON|be found here|be made from|is none"):
        JSONSerializer[Any]().loads(blob)


def test_json_takes_arguments_and_functions_by_name() -> None:
    assert JSONSerializer[Any](dumps_kwargs={"indent": 1}).dumps({"a": 1}) == b'{\n "a": 1\n}'
    assert JSONSerializer[Any](loads_kwargs={"parse_float": str}).loads(b"1.5") == "1.5"
    assert JSONSerializer[Any](object_encoder="builtins.repr").dumps(Colour.RED) == b"\"<Colour.RED: 'red'>\""
    with pytest.raises(SerializationError, match="not JSON serializable"):
        JSONSerializer[Any](object_encoder=None).dumps(Colour.RED)
    with pytest.raises(SerializationError, match=r"no function no_module\.f"):
        JSONSerializer[Any](object_encoder="no_module.f").dumps(Colour.RED)
    with pytest.raises(ValueError, match="object_encoder"):
        JSONSerializer[Any](dumps_kwargs={"default": str})
    with pytest.raises(ValueError, match="object_decoder"):
        JSONSerializer[Any](loads_kwargs={"object_hook": str})


def test_pickle_says_what_can_not_be_pickled_or_loaded() -> None:
    with pytest.raises(SerializationError, match=r"type lock can't be pickled: TypeError"):
        PickleSerializer[Any]().dumps(threading.Lock())
    with pytest.raises(SerializationError, match="must be importable"):
        PickleSerializer[Any]().loads(b"garbage")
    assert PickleSerializer[Any]().loads(PickleSerializer[Any]().dumps(lambda: 5))() == 5


def test_pickle_takes_another_library() -> None:
    serializer = PickleSerializer[Any](picklelib="pickle", picklelib_version="1")
    assert serializer.loads(serializer.dumps([1])) == [1]
    with pytest.raises(SerializationError):
        serializer.dumps(lambda: 5)
    with pytest.raises(ValueError, match="'nolib' can't be imported"):
        PickleSerializer[Any](picklelib="nolib")
    with pytest.raises(ValueError, match="'textwrap' has no function 'dumps'"):
        PickleSerializer[Any](picklelib="textwrap")


@pytest.mark.parametrize("library", ["lzma", "zlib", "gzip", "bz2"])
def test_compressed_is_shorter(library: str) -> None:
    serializer = CompressedSerializer[Any](serializer="json", compressionlib=library)  # pyright: ignore
    value = ["the same again"] * 200
    blob = serializer.dumps(value)
    assert len(blob) < len(JSONSerializer[Any]().dumps(value)) / 5
    assert serializer.loads(blob) == value
    with pytest.raises(SerializationError, match="decompressed"):
        serializer.loads(b"garbage")


def test_compressed_checks_its_parts() -> None:
    with pytest.raises(ValueError, match="'nolib' can't be imported"):
        CompressedPickleSerializer[Any](compressionlib="nolib")
    with pytest.raises(ValueError, match="no function 'compress'"):
        CompressedPickleSerializer[Any](compressionlib="json")
    with pytest.raises(ValueError, match="no serializer 'nope'"):
        CompressedSerializer[Any](serializer="nope")  # pyright: ignore


@pytest.mark.parametrize("name", ALL)
def test_a_type_gives_its_serializer(name: str) -> None:
    kinds = dict(
        zip(
            ALL,
            (PickleSerializer, JSONSerializer, CompressedPickleSerializer, CompressedJSONSerializer),
            strict=True,
        )
    )
    for made in (Serializer(type=name), resolve_serializer(name), Serializer.model_validate({"type": name})):
        assert type(made) is kinds[name]
    assert resolve_serializer(name) == kinds[name]()


def test_pickle_is_the_one_that_is_used_unless_another_is_asked_for() -> None:
    assert resolve_serializer(None) == PickleSerializer()
    own = ShoutSerializer(times=2)
    assert resolve_serializer(own) is own


def test_what_is_no_serializer_is_refused_with_the_known_types() -> None:
    with pytest.raises(ConfigurationError, match=r"no serializer 'nope', only .*'compressed/json'.*'pickle'"):
        resolve_serializer("nope")
    with pytest.raises(OptionTypeError, match="result_serializer"):
        resolve_serializer(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="that is JSONSerializer"):
        PickleSerializer(type="json")
    with pytest.raises(ValueError, match="Extra inputs"):
        JSONSerializer(indent=1)  # pyright: ignore
    with pytest.raises(ValueError, match="Field required"):
        Serializer()  # pyright: ignore


def test_a_serializer_of_ones_own_is_known_by_its_type() -> None:
    assert resolve_serializer("test-shout") == ShoutSerializer()
    made = Serializer(type="test-shout", times=2)  # pyright: ignore
    assert made.dumps("a") == b"AA"
    packed = CompressedSerializer[Any](serializer="test-shout")  # pyright: ignore
    assert packed.loads(packed.dumps("a")) == "A"


def test_a_class_that_writes_something_else_needs_a_type_of_its_own() -> None:
    with pytest.raises(TypeError, match="needs a type of its own"):

        class Nameless(Serializer[Any]):  # pyright: ignore[reportUnusedClass]
            def dumps(self, obj: Any) -> bytes:
                return b""

    with pytest.raises(TypeError, match="needs a type of its own"):

        class More(JSONSerializer[Any]):  # pyright: ignore[reportUnusedClass]
            more: int = 1

    class Indented(JSONSerializer[Any]):
        dumps_kwargs: dict[str, Any] = pydantic.Field(default={"indent": 1})

    assert type(Serializer(type="json")) is JSONSerializer
    assert Indented().dumps([1]) == b"[\n 1\n]"
    assert serializer_from_spec({**serializer_spec(Indented()), "modules": []}).dumps([1]) == b"[\n 1\n]"


def test_taking_the_type_of_another_class_is_told() -> None:
    class First(Serializer[Any]):  # pyright: ignore[reportUnusedClass]
        type: str = "test-taken"

    with pytest.warns(UserWarning, match="Second replaces .*First as the serializer 'test-taken'"):

        class Second(Serializer[Any]):
            type: str = "test-taken"

    assert type(Serializer(type="test-taken")) is Second


@pytest.mark.parametrize(
    "serializer",
    [
        JSONSerializer(dumps_kwargs={"indent": 1}),
        PickleSerializer(picklelib="pickle"),
        CompressedSerializer(serializer=JSONSerializer(dumps_kwargs={"indent": 2}), compressionlib="zlib"),
        CompressedSerializer(serializer=ShoutSerializer(times=3)),
        ShoutSerializer(times=2),
    ],
    ids=lambda serializer: serializer.type,
)
def test_a_serializer_is_plain_data_and_back(serializer: Serializer[Any]) -> None:
    assert serializer_from_spec(serializer_spec(serializer)) == serializer


def test_another_process_finds_the_class_of_ones_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "own_serializer.py").write_text(
        textwrap.dedent("""
            from prefect_lite.serializers import Serializer
            class Own(Serializer):
                type: str = "own"
                def loads(self, blob):
                    return "own " + blob.decode()
        """)
    )
    code = """
        from prefect_lite.serializers import serializer_from_spec
        print(serializer_from_spec({"type": "own", "modules": ["own_serializer"]}).loads(b"x"))
        print(serializer_from_spec({"type": "compressed", "serializer": {"type": "own"}}).serializer.type)
        try:
            serializer_from_spec({"type": "own", "modules": ["not_there"]})
        except ValueError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[:2] == ["own x", "own"]
    assert "The module not_there of the serializer 'own' can't be imported" in done.stdout


def test_classes_of_the_main_program_go_by_the_name_others_import_them_by(tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import sys, pydantic
            from prefect_lite import task
            from prefect_lite.serializers import Serializer
            class Mine(pydantic.BaseModel):
                value: int = 1
            @task
            def anything(): pass
            if __name__ == "__main__":
                for kind in ("pickle", "json"):
                    open(kind, "wb").write(Serializer(type=kind).dumps(Mine()))
        """)
    )
    reading = """
        from prefect_lite.serializers import Serializer
        for kind in ("pickle", "json"):
            print(type(Serializer(type=kind).loads(open(kind, "rb").read())).__module__)
    """
    for arguments in (["program.py"], ["-c", textwrap.dedent(reading)]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )
    assert done.stdout.split() == ["program", "program"]


@pytest.mark.parametrize("kind", ALL)
def test_serializers_are_copied_and_pickled(kind: str) -> None:
    serializer = resolve_serializer(kind)
    for other in (pickle.loads(pickle.dumps(serializer)), copy.deepcopy(serializer), serializer.model_copy()):
        assert type(other) is type(serializer)
        assert other == serializer


@dataclasses.dataclass
class Anything:
    held: Any


class AnyModel(pydantic.BaseModel):
    held: Any


@pytest.mark.parametrize(
    "value",
    [
        Anything({1, 2}),
        Anything(datetime.date(2020, 1, 1)),
        Anything(Anything(1)),
        Anything([Model(number=1)]),
        AnyModel(held=b"a"),
        AnyModel(held=decimal.Decimal(1)),
        AnyModel(held=math.inf),
        AnyModel(held=math.nan),
        collections.deque([1], maxlen=3),
        {datetime.date(2020, 1, 1)},
        {(1, 2)},
        {b"a"},
        {Colour.RED},
        decimal.Decimal("NaN"),
        bytearray(b"a"),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(seconds=1))),
        {1: "int", "1": "text"},
        [{True: 1, "true": 2}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_refuses_what_would_come_back_as_something_else(value: Any) -> None:
    with pytest.raises(SerializationError):
        JSONSerializer[Any]().dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        Anything((1, [2.5, None, True])),
        Anything({"a": {"b": "c"}}),
        Anything({1: 2, False: 4}),
        collections.deque([1, "a"]),
        {1, "1"},
        {None, 1.5},
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_takes_what_comes_back_as_json_does_it(value: Any) -> None:
    json = JSONSerializer[Any]()
    back = json.loads(json.dumps(value))
    assert type(back) is type(value)
    assert json.dumps(back) == json.dumps(value)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.dates() | st.uuids() | st.decimals() | st.sets(st.integers() | st.text() | st.dates()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Anything, inner)
    | st.builds(AnyModel, held=inner),
    max_leaves=6,
)  # fmt: skip


@given(_anything)
def test_json_brings_back_what_it_takes(value: Any) -> None:
    json = JSONSerializer[Any]()
    try:
        data = json.dumps(value)
    except SerializationError:
        return
    assert json.loads(data) == value
