"""What a transaction can be in, and how it can be asked to behave."""

from __future__ import annotations

from enum import Enum


class IsolationLevel(str, Enum):  # noqa: UP042 - as text it is CommitMode.EAGER, as Prefect's
    """What transactions with the same key see of each other."""

    READ_COMMITTED = "READ_COMMITTED"
    """Each sees what others have committed; several may run at a time, and the last one's record stays."""
    SERIALIZABLE = "SERIALIZABLE"
    """One at a time has the key; needs a lock manager."""


class CommitMode(str, Enum):  # noqa: UP042 - as text it is CommitMode.EAGER, as Prefect's
    """When a transaction commits."""

    EAGER = "EAGER"
    """When its block is over."""
    LAZY = "LAZY"
    """When the outermost one around it commits; the outermost itself when its block is over."""
    OFF = "OFF"
    """Never by itself: without a ``commit()`` it rolls back."""


class TransactionState(str, Enum):  # noqa: UP042 - as text it is CommitMode.EAGER, as Prefect's
    """How far a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"
