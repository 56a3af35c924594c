"""What to do when Redis refuses a call: most refusals pass, and the call is made again."""

from __future__ import annotations

from enum import Enum, auto

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)


class Cure(Enum):
    """How to get a refused call through."""

    LOAD = auto()  # load the scripts, then repeat
    REDIAL = auto()  # another server is, or will be, the right one
    WAIT = auto()  # repeat on the same connection a little later
    ROOM = auto()  # the same, but calls that make room pass meanwhile
    NONE = auto()  # it will be refused for ever


class ReplicasMissing(ResponseError):
    """Too few replicas have confirmed a pipeline."""


_WORDS = {
    "READONLY": Cure.REDIAL,
    "MASTERDOWN": Cure.REDIAL,
    "CLUSTERDOWN": Cure.REDIAL,
    "OOM": Cure.ROOM,
    "MISCONF": Cure.WAIT,
    "TRYAGAIN": Cure.WAIT,
    "NOREPLICAS": Cure.WAIT,
    "BUSY": Cure.WAIT,
}

_CLASSES: tuple[tuple[type[ResponseError], Cure], ...] = (
    (NoScriptError, Cure.LOAD),
    (MovedError, Cure.REDIAL),
    # ASK is never followed: the scripts build their keys from a prefix which is no key itself, so while a
    # slot moves, its old node answers ASK to every call, and the new one has only some of the keys. When
    # the move is over the old node answers MOVED.
    (AskError, Cure.WAIT),
    (TryAgainError, Cure.WAIT),
    (ReplicasMissing, Cure.WAIT),
    (ReadOnlyError, Cure.REDIAL),
    (MasterDownError, Cure.REDIAL),
    (ClusterDownError, Cure.REDIAL),
    (OutOfMemoryError, Cure.ROOM),
)


def cure(error: ResponseError) -> Cure:
    """What helps against a refusal."""
    for kind, way in _CLASSES:
        if isinstance(error, kind):
            return way
    # redis-py has no class for some, and knows none by an error that a script passed on.
    return _WORDS.get(str(error).partition(" ")[0], Cure.NONE)


def sentence(error: ResponseError) -> str:
    """What the refusal says, with the word that redis-py cuts off; to be put into a sentence."""
    if isinstance(error, MovedError):
        return f"slot {error.slot_id} has moved to {error.host}:{error.port}"
    if isinstance(error, AskError):
        return f"slot {error.slot_id} is moving to {error.host}:{error.port}"
    return str(error).rstrip(".")
