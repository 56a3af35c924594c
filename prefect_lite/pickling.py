"""cloudpickle with the ``__main__`` rule of ``main_module``. Imported on first need: it is not cheap."""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any, cast

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

from prefect_lite.main_module import load_name, main_reference

PROTOCOL = 5


class MainAwarePickler(cloudpickle.Pickler):  # pyright: ignore[reportUntypedBaseClass, reportUnknownMemberType]
    """Classes and functions of a program that defines tasks go by import name, not by value."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            reference = main_reference(obj)
            if reference is not None:
                return load_name, reference
        return cast(Any, super()).reducer_override(obj)


def dumps(value: Any) -> bytes:
    """``value`` as a pickle. Raises whatever the value's own reduction raises."""
    buffer = io.BytesIO()
    cast(Any, MainAwarePickler)(buffer, protocol=PROTOCOL).dump(value)
    return buffer.getvalue()


def loads(data: bytes) -> Any:
    """The inverse of ``dumps``; only for data whose signature was checked."""
    return pickle.loads(data)
