"""One question to the broker on a connection of its own, as an administrator if the token is there."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidStatus, WebSocketException

from prefect_lite.embedded.home import Tokens, configured_tokens
from prefect_lite.embedded.local_broker import find_or_start
from prefect_lite.exceptions import AuthenticationFailed, BrokerError, BrokerUnreachable
from prefect_lite.protocol.messages import PROTOCOL_NAME, Answer, Cancel, Error, Message, Query
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.settings import Settings
from prefect_lite.version import __version__

REQUEST = 1
UNIX_PREFIX = "ws+unix://"


def ask(settings: Settings, what: str, arg: Any = None) -> Any:
    """Send QUERY and wait for its ANSWER.

    Args:
        settings: Name the broker; without a URL the local one is found or started.
        what: The question, see ``prefect_lite_broker.queries``.
        arg: Its argument.

    Raises:
        BrokerUnreachable: Nobody answered within ``connect_timeout_seconds``.
        AuthenticationFailed: The token was refused.
        BrokerError: The broker refused the question; its sentence.
    """
    return _exchange(settings, Query(REQUEST, what, arg))


def cancel(settings: Settings, run_id: str) -> str:
    """Cancel a run.

    Returns:
        ``cancelled``, ``cancelling`` (it is running), ``already`` (it had ended) or ``unknown``.

    Raises:
        BrokerError: As ``ask``.
    """
    return str(_exchange(settings, Cancel(REQUEST, run_id))["status"])


def _exchange(settings: Settings, message: Message) -> Any:
    if settings.broker_url:
        targets, tokens = list(settings.broker_url), configured_tokens(settings)
    else:
        target = find_or_start(settings)
        targets, tokens = [UNIX_PREFIX + target.unix_path], target.tokens
    return asyncio.run(_first_answer(settings, targets, tokens, message))


async def _first_answer(settings: Settings, targets: list[str], tokens: Tokens, message: Message) -> Any:
    refusal: Exception | None = None
    for url in targets:
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                return await _ask_one(settings, url, tokens, message)
        except InvalidStatus as exc:
            if exc.response.status_code in (401, 403):
                remedy = f"Set PREFECT_LITE_{_role(tokens).upper()}_TOKEN to the one in its tokens.json."
                raise AuthenticationFailed(f"The broker {url} refused the token. {remedy}") from exc
            refusal = exc
        except (OSError, WebSocketException) as exc:  # a TimeoutError is an OSError
            refusal = exc
    said = f" The last attempt: {refusal}" if str(refusal) else ""
    raise BrokerUnreachable(
        f"No broker answered at {', '.join(targets)} within {settings.connect_timeout_seconds:g} s. "
        f"Start one with 'prefect-lite broker', or correct PREFECT_LITE_BROKER_URL.{said}"
    ) from refusal


def _role(tokens: Tokens) -> str:
    return "admin" if tokens.admin else "client"


async def _ask_one(settings: Settings, url: str, tokens: Tokens, message: Message) -> Any:
    role = _role(tokens)
    options: dict[str, Any] = {
        "additional_headers": {"Authorization": f"Bearer {tokens.for_role(role)}"},
        "subprotocols": [PROTOCOL_NAME],
        "compression": None,
        "max_size": settings.max_payload_bytes,
    }
    if url.startswith(UNIX_PREFIX):
        connection = unix_connect(url.removeprefix(UNIX_PREFIX), "ws://localhost/", **options)
    else:
        connection = connect(url, proxy=None, **options)
    session = PeerSession(
        role, settings.namespace, version=__version__, max_payload_bytes=settings.max_payload_bytes
    )
    async with connection as socket:
        session.connect()
        session.send(message)
        return await _answer(socket, session)


async def _answer(socket: ClientConnection, session: PeerSession) -> Any:
    while True:
        for frame in session.data_to_send():
            await socket.send(frame)
        for received in session.receive(await socket.recv(decode=False)):
            if isinstance(received, Answer):
                if received.ok:
                    return received.value
                raise BrokerError(str(received.value[1]))
            if isinstance(received, Error):
                raise BrokerError(received.text)
