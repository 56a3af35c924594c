"""What a QUERY is to those who answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

MakeRoom = Callable[[int], AbstractAsyncContextManager[None]]
"""Waits until whoever asks may be sent so many bytes, and counts them as on their way until it is left."""


class Refusal(Exception):
    """A question that is not answered: machine code and sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Question(NamedTuple):
    """How a QUERY is answered.

    Attributes:
        ask: Called with the hub and the argument, or what is ``whole``; returns the value of the ANSWER, or
            ``WithBody``.
        admin: Only an administrator may ask it.
        whole: ``ask`` gets the ``Asked``.
        takes_body: A body may come with it.
    """

    ask: Callable[[Hub, Any], Awaitable[Any]]
    admin: bool = False
    whole: bool = False
    takes_body: bool = False


def plenty(_size: int) -> AbstractAsyncContextManager[None]:
    """There is always room."""
    return nullcontext()


class Asked(NamedTuple):
    """A question as it came."""

    arg: Any = None
    body: bytes | None = None
    room: MakeRoom = plenty


class WithBody(NamedTuple):
    """An answer with more than a value."""

    value: Any
    body: bytes | None
