"""Serializers: what comes back, own ones, and what can't be serialized."""

import datetime
import decimal
import enum
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from observing import told
from prefect import task
from prefect.results import resolve_serializer
from prefect.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
)
from pydantic import BaseModel


class _Color(enum.Enum):
    RED = 1


class _Model(BaseModel):
    x: int


@dataclass
class _Pair:
    a: int
    b: object


VALUES = [
    None,
    1,
    1.5,
    "text",
    b"bytes",
    [1, [2]],
    (1, 2),
    {"a": 1},
    {1: 2},
    {1, 2},
    frozenset([1]),
    uuid.UUID(int=5),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    datetime.date(2020, 1, 2),
    datetime.timedelta(seconds=5),
    decimal.Decimal("1.5"),
    Path("a/b"),
    _Color.RED,
    _Model(x=1),
    _Pair(1, 2),
    ValueError("v"),
    float("inf"),
    1 + 2j,
    range(3),
    int,
    {"a": {"b": (1, {2})}},
    [_Model(x=1), {"m": _Model(x=2)}],
]


def _back(serializer, value):
    def call():
        again = serializer.loads(serializer.dumps(value))
        return [
            type(again).__name__,
            again if type(again) in (int, str, list, dict) else str(again) == str(value),
        ]

    return told(call)


def pickled():
    return [_back(PickleSerializer(), value) for value in VALUES]


def as_json():
    return [_back(JSONSerializer(), value) for value in VALUES]


def compressed():
    return [
        [_back(CompressedPickleSerializer(), value), _back(CompressedJSONSerializer(), value)]
        for value in (1, [1, 2], {"a": None})
    ]


def types_of_output():
    return [
        type(serializer.dumps(1)).__name__
        for serializer in (
            PickleSerializer(),
            JSONSerializer(),
            CompressedPickleSerializer(),
            CompressedJSONSerializer(),
        )
    ]


def json_text():
    return [
        told(lambda value=value: JSONSerializer().dumps(value).decode())
        for value in (1, "ä", [1], {"a": None}, None)
    ]


def types():
    return [
        PickleSerializer().type,
        JSONSerializer().type,
        CompressedPickleSerializer().type,
        CompressedJSONSerializer().type,
        CompressedSerializer(serializer="json").type,
        CompressedSerializer(serializer="pickle").serializer.type,
        CompressedSerializer(serializer=JSONSerializer()).serializer.type,
    ]


def fields():
    return [
        PickleSerializer().picklelib,
        PickleSerializer(picklelib="pickle").picklelib,
        told(lambda: PickleSerializer(picklelib="no_such_module")),
        told(lambda: PickleSerializer(picklelib="json")),
        JSONSerializer().jsonlib,
        told(lambda: JSONSerializer(dumps_kwargs={"indent": 1}).dumps({"a": 1}).decode()),
        told(lambda: JSONSerializer(dumps_kwargs={"default": str})),
        told(lambda: JSONSerializer(loads_kwargs={"object_hook": str})),
        told(lambda: JSONSerializer(dumps_kwargs={"sort_keys": True}).dumps({"b": 1, "a": 2}).decode()),
        CompressedPickleSerializer().compressionlib,
        told(lambda: _back(CompressedPickleSerializer(compressionlib="bz2"), [1])),
        told(lambda: _back(CompressedSerializer(serializer="json", compressionlib="zlib"), [1])),
        told(lambda: CompressedSerializer(serializer="json", compressionlib="json")),
        told(lambda: CompressedSerializer(serializer="json", compressionlib="no_such_module")),
        told(lambda: CompressedSerializer(serializer="nothing")),
        told(lambda: CompressedSerializer()),
        told(lambda: PickleSerializer(zz=1)),
    ]


def by_name():
    return [
        told(lambda value=value: type(resolve_serializer(value)).__name__)
        for value in (
            "json",
            "pickle",
            "compressed/json",
            "compressed/pickle",
            JSONSerializer(),
            "nothing",
            "compressed/nothing",
            "JSON",
            "",
            5,
        )
    ]


def by_type():
    return [
        told(lambda: type(Serializer(type="json")).__name__),
        told(lambda: type(Serializer(type="nothing")).__name__),
        told(lambda: type(Serializer.model_validate({"type": "json"})).__name__),
        told(lambda: type(Serializer()).__name__),
    ]


def equality():
    return [
        JSONSerializer() == JSONSerializer(),
        JSONSerializer() == PickleSerializer(),
        JSONSerializer() == JSONSerializer(dumps_kwargs={"indent": 1}),
    ]


def own_classes():
    class Reversing(Serializer):
        type: str = "reversing-text"

        def dumps(self, obj):
            return str(obj)[::-1].encode()

        def loads(self, blob):
            return blob.decode()[::-1]

    made = task(
        result_serializer="reversing-text",
        result_storage=Path("own").resolve(),
        result_storage_key="k",
        cache_result_in_memory=False,
    )(lambda: "abc")
    return [
        told(lambda: type(resolve_serializer("reversing-text")).__name__),
        told(made),
        told(made),
        "cba" in (Path("own") / "k").read_text(),
        told(
            lambda: task(
                result_serializer=Reversing(), result_storage=Path("own").resolve(), result_storage_key="o"
            )(lambda: "xyz")()
        ),
    ]


def own_classes_without_methods():
    class Partial(Serializer):
        type: str = "partial-text"

    return told(lambda: Partial().dumps(1))


def values_that_can_not_be_serialized():
    lock = threading.Lock()
    return [
        told(lambda: PickleSerializer().dumps(lock)),
        told(lambda: JSONSerializer().dumps(lock)),
        told(lambda: CompressedPickleSerializer().dumps(lock)),
    ]


def output_of_something_else():
    return [
        told(lambda: PickleSerializer().loads(b"not a pickle")),
        told(lambda: JSONSerializer().loads(b"{no json")),
        told(lambda: CompressedJSONSerializer().loads(b"not compressed")),
    ]


def functions_and_local_classes():
    class Local:
        x = 3

    serializer = PickleSerializer()
    again = serializer.loads(serializer.dumps(lambda x: x + 1))
    return [again(1), serializer.loads(serializer.dumps(Local)).x]


def exceptions():
    class Own(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")
            self.a = a

    return [
        _back(PickleSerializer(), KeyError("k")),
        told(lambda: PickleSerializer().loads(PickleSerializer().dumps(Own(1, 2)))),
    ]
