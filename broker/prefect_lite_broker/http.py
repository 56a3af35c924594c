"""The read-only HTTP of a broker, on the port of its websockets, and who may open one.

``/healthz`` says that the process turns its loop, ``/readyz`` that it can accept runs, ``/metrics`` is for
Prometheus (with a token). Everything that changes something is a websocket verb: the websockets library
refuses request bodies, and so do we.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from prefect_lite.protocol.messages import PROTOCOL_NAME
from prefect_lite_broker.auth import NO_ROLES, Auth
from prefect_lite_broker.queries import broker_facts

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

WEBSOCKET_PATHS = ("/", "/ws")


def asks_readiness(request: Request) -> bool:
    """Whether ``readiness`` has to answer, which takes a question to Redis."""
    return request.method == "GET" and request.path.partition("?")[0] == "/readyz"


def decide(hub: Hub, auth: Auth, request: Request) -> Response | frozenset[str]:
    """Answer an HTTP request, or say which roles the websocket it asks for may take."""
    if request.method != "GET":
        return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is served; changes are websocket messages.\n")
    path = request.path.partition("?")[0]
    if path == "/healthz":
        return _plain(HTTPStatus.OK, "ok\n")
    roles = _roles(auth, request)
    if path == "/metrics":
        return _metrics(hub) if roles else _unauthorized()
    if path not in WEBSOCKET_PATHS:
        return _plain(HTTPStatus.NOT_FOUND, f"There is nothing at {path[:100]}.\n")
    if "Origin" in request.headers:
        # Only browsers send it, and no page has any business here.
        return _plain(HTTPStatus.FORBIDDEN, "This endpoint is not for browsers.\n")
    if not roles:
        return _unauthorized()
    if hub.stopping:
        return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "The broker is stopping.\n")
    if len(hub.peers) >= hub.settings.max_connections:
        return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "The broker has as many connections as it may.\n")
    return _other_protocol(request) or roles


def _other_protocol(request: Request) -> Response | None:
    """Refuse a websocket that offers none of our protocols.

    The library would too, but with a text that says nothing. A client tells this 400 from that of a proxy by
    the header, which names what is spoken here.
    """
    if "Upgrade" not in request.headers:
        return None  # no websocket at all, says the library
    offered = ", ".join(request.headers.get_all("Sec-WebSocket-Protocol"))
    if PROTOCOL_NAME in (name.strip() for name in offered.split(",")):
        return None
    response = _plain(
        HTTPStatus.BAD_REQUEST,
        f"This broker speaks {PROTOCOL_NAME}, not {offered[:100] or 'an unnamed protocol'}; "
        "use the same version of prefect-lite on both sides.\n",
    )
    response.headers["Sec-WebSocket-Protocol"] = PROTOCOL_NAME
    return response


def _roles(auth: Auth, request: Request) -> frozenset[str]:
    try:
        return auth.roles(request.headers.get("Authorization", ""))
    except MultipleValuesError:
        return NO_ROLES


def _unauthorized() -> Response:
    response = _plain(
        HTTPStatus.UNAUTHORIZED,
        "The token is missing or wrong. Clients and workers need the one of this broker, from "
        "PREFECT_LITE_CLIENT_TOKEN or PREFECT_LITE_WORKER_TOKEN, or from tokens.json in the same home.\n",
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def readiness(hub: Hub) -> Response:
    """Answer ``/readyz``: 200 when a run could be accepted just now, else 503 and the reason."""
    reason = "The broker is stopping." if hub.stopping else await hub.store.readiness()
    facts: dict[str, Any] = {
        "ready": not reason,
        "reason": reason,
        "stopping": hub.stopping,
        "broker": hub.broker_id,
        "version": hub.version,
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
    return _respond(status, json.dumps(facts) + "\n", "application/json")


def _metrics(hub: Hub) -> Response:
    facts = broker_facts(hub)
    counters: dict[str, int] = facts["counters"]
    lines = [
        f"prefect_lite_broker_connections {facts['connections']}",
        f"prefect_lite_broker_workers {facts['workers']}",
        f"prefect_lite_broker_watches {facts['watches']}",
        f"prefect_lite_broker_waiting_runs {facts['waiting']}",
        f"prefect_lite_broker_store_healthy {int(facts['store_healthy'])}",
    ]
    lines += [f"prefect_lite_store_{name} {value}" for name, value in sorted(counters.items())]
    return _respond(HTTPStatus.OK, "\n".join(lines) + "\n", "text/plain; version=0.0.4; charset=utf-8")


def _plain(status: HTTPStatus, text: str) -> Response:
    return _respond(status, text, "text/plain; charset=utf-8")


def _respond(status: HTTPStatus, text: str, content_type: str) -> Response:
    body = text.encode()
    headers = Headers(
        [
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", content_type),
            ("Cache-Control", "no-store"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)
