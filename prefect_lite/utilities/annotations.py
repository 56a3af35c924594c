"""Marks on arguments that say how a task takes them."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class BaseAnnotation(Generic[T]):
    """A value with a mark; ``unwrap()`` gives the value."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """The value without its mark."""
        return self.value

    def rewrap(self, value: T) -> Self:
        """Another value with the same mark."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == getattr(other, "value", None)

    __hash__ = None  # type: ignore[assignment]  # the value may be unhashable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(BaseAnnotation[T]):
    """In ``map``: give the value to every run, although it is iterable."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> T:
        return self.value


class allow_failure(BaseAnnotation[T]):
    """For a future: give the task the exception of a run that failed, instead of failing too."""

    __slots__ = ()


class quote(BaseAnnotation[T]):
    """Leave the value as it is: don't look for futures in it."""

    __slots__ = ()

    def unquote(self) -> T:
        """The same as ``unwrap``."""
        return self.unwrap()


class opaque(BaseAnnotation[T]):
    """In a call: the value counts as one thing. Futures in it are replaced."""

    __slots__ = ()


class freeze(BaseAnnotation[T]):
    """In a call: the value is a constant of the run. Futures in it are replaced."""

    __slots__ = ()

    def unfreeze(self) -> T:
        """The same as ``unwrap``."""
        return self.unwrap()
