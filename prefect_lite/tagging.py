"""``tags(...)``: labels for all runs that are made inside the block."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar, Token

_NONE: frozenset[str] = frozenset()
_current: ContextVar[frozenset[str]] = ContextVar("prefect_lite_tags", default=_NONE)


def current_tags() -> frozenset[str]:
    """The labels of the blocks around this code."""
    return _current.get()


def enter_tags(tags: frozenset[str]) -> Token[frozenset[str]]:
    """Make these the labels around this code, for a run that was called under them elsewhere."""
    _current.set(_current.get())  # a value to go back to, see ``context.enter_run``
    return _current.set(tags)


def leave_tags(token: Token[frozenset[str]]) -> None:
    """Undo ``enter_tags``."""
    try:
        _current.reset(token)
    except ValueError:  # a coroutine that is closed from outside, where its own context is gone
        return


@contextmanager
def tags(*new_tags: str) -> Generator[set[str]]:
    """Give every flow run and task run made inside the block these tags, beside those of outer blocks.

    Args:
        *new_tags: Strings.

    Raises:
        TypeError: One is no string.

    Example:
        >>> with tags("nightly", "eu") as now:
        ...     sorted(now)
        ['eu', 'nightly']
    """
    for tag in new_tags:
        if not isinstance(tag, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Tags are strings, got {tag!r}.")
    now = _current.get() | frozenset(new_tags)
    token = enter_tags(now)
    try:
        yield set(now)
    finally:
        leave_tags(token)
