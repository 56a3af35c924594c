"""Who may send what: the one table of verbs and roles.

The sessions take their checks from here and a test holds that every verb has a row. ``admin`` may do all
that a client may; which *kinds* of QUERY need it is the broker's business.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from prefect_lite.protocol.messages import VERBS, Message

CLIENT: Final = "client"
WORKER: Final = "worker"
ADMIN: Final = "admin"
ROLES: Final = frozenset({CLIENT, WORKER, ADMIN})


class Permission(NamedTuple):
    """The roles that may send a verb to the broker, and those the broker may send it to."""

    to_broker: frozenset[str] = frozenset()
    from_broker: frozenset[str] = frozenset()


_CLIENTS = frozenset({CLIENT, ADMIN})
_WORKERS = frozenset({WORKER})

PERMISSIONS: Final[dict[str, Permission]] = {
    "HELLO": Permission(ROLES),
    "WELCOME": Permission(from_broker=ROLES),
    "SUBMIT": Permission(_CLIENTS),
    "ACCEPTED": Permission(from_broker=_CLIENTS),
    "REFUSED": Permission(from_broker=_CLIENTS),
    "WATCH": Permission(ROLES),  # a worker reads the results its runs were waiting for
    "UNWATCH": Permission(ROLES),
    "STATE": Permission(from_broker=ROLES),
    "CANCEL": Permission(_CLIENTS, _WORKERS),
    "SERVE": Permission(_WORKERS),
    "READY": Permission(_WORKERS),
    "RUN": Permission(from_broker=_WORKERS),
    "STARTED": Permission(_WORKERS),
    "FINISH": Permission(_WORKERS),
    "RETRY": Permission(_WORKERS),
    "RELEASE": Permission(_WORKERS),
    "DONE": Permission(from_broker=_WORKERS),
    "RENEW": Permission(ROLES),  # also the heartbeat of those who hold nothing
    "REVOKE": Permission(from_broker=ROLES),
    "CHUNK": Permission(ROLES, ROLES),
    "LOG": Permission(_WORKERS),
    "PROGRESS": Permission(_WORKERS),
    "QUERY": Permission(ROLES),
    "ANSWER": Permission(from_broker=ROLES),
    "GOODBYE": Permission(ROLES, ROLES),
    "ERROR": Permission(ROLES, ROLES),
}


def receivable_by_broker(role: str) -> frozenset[type[Message]]:
    """The messages a broker takes from a peer of this role."""
    return frozenset(VERBS[verb] for verb, row in PERMISSIONS.items() if role in row.to_broker)


def receivable_by_peer(role: str) -> frozenset[type[Message]]:
    """The messages a peer of this role takes from the broker."""
    return frozenset(VERBS[verb] for verb, row in PERMISSIONS.items() if role in row.from_broker)
