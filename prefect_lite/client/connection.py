"""Keeps a connection to a broker up: dials, shakes hands, pumps, and begins anew after every fault.

Used by clients and workers alike. It gives up only where repeating can't help: a wrong token, another
namespace, or a broker that speaks another version of the protocol.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from prefect_lite.exceptions import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnreachable,
    ConfigurationError,
    ProtocolVersionError,
)
from prefect_lite.protocol.codec import MAX_FRAME, ProtocolError
from prefect_lite.protocol.messages import PROTOCOL_NAME, Error, Goodbye, Message, Welcome
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.protocol.pump import Pump
from prefect_lite.settings import Settings

logger = logging.getLogger(__name__)

UNIX_SCHEME: Final = "ws+unix://"
MAX_MESSAGE_BYTES: Final = MAX_FRAME + 64 * 1024
CLOSE_SECONDS: Final = 1.0
_DENIED = (401, 403)
_BAD_REQUEST = 400
_VERSION_CODES = frozenset({"version", "unsupported_version"})


class _Dial(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc  # a redirect could carry the token to another host


class BrokerConnection:
    """One peer's connection, through any number of websockets one after the other.

    Everything runs on the loop that runs ``run()``.

    Args:
        session: Remembers what was not answered, across websockets.
        settings: Where brokers are (``broker_url``; empty: the local one, started if need be) and all times.
        role: ``client``, ``worker`` or ``admin``: which token is shown.
        on_messages: Takes what arrives, WELCOME included. Must not raise.
        on_up: Called after each WELCOME, before ``on_messages`` gets the messages of that frame.
        on_down: Called when a websocket that was up is lost, and after each attempt to dial that failed.
        needed: Whether anybody has a use for a connection now; None: always. While not, a lost one is not
            replaced until ``wake``.

    Attributes:
        connected: A WELCOME has come on the present websocket.
        starting: The local broker is being looked for or started.
        resting: Nobody needs a connection; ``wake`` ends that.
        last_error: Why the last attempt or websocket ended, None if it was closed in good order.
    """

    def __init__(
        self,
        session: PeerSession,
        settings: Settings,
        role: str,
        *,
        on_messages: Callable[[list[Message]], None],
        on_up: Callable[[Welcome], None],
        on_down: Callable[[Exception | None], None],
        needed: Callable[[], bool] | None = None,
    ) -> None:
        self.session = session
        self.connected = False
        self.starting = False
        self.resting = False
        self.last_error: Exception | None = None
        self._settings = settings
        self._role = role
        self._on_messages = on_messages
        self._on_up = on_up
        self._on_down = on_down
        self._needed = needed
        self._woken = asyncio.Event()
        self._pump: Pump | None = None
        self._ws: ClientConnection | None = None
        self._closing = False
        self._gathering = False
        self._due = False
        self._closed = asyncio.Event()
        self._failures = 0
        self._urls = list(settings.broker_url)
        random.shuffle(self._urls)  # spreads clients over brokers

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until ``aclose``.

        Raises:
            AuthenticationFailed: The broker refuses the token.
            ProtocolVersionError: It speaks another version.
            ConfigurationError: A broker URL or a key file makes no sense, or the broker has another
                namespace.
        """
        while not self._closing:
            await self._rest()
            if self._closing:
                return
            fault: Exception | None = None
            try:
                ws = await self._dial()
                fault = await self._use(ws)
            except (AuthenticationFailed, ProtocolVersionError, ConfigurationError) as exc:
                self._lost(exc)
                raise
            except (OSError, InvalidHandshake, BrokerError, EOFError, UnicodeError) as exc:
                fault = _named(exc)
            self._lost(fault)
            if self._closing:
                return
            self._urls.append(self._urls.pop(0)) if self._urls else None
            await self._back_off()

    async def aclose(self, reason: str = "closed") -> None:
        """Say goodbye and end ``run``."""
        self._closing = True
        self._closed.set()
        self._woken.set()
        ws, pump = self._ws, self._pump
        if ws is None or pump is None:
            return
        if self.connected:
            self.session.send(Goodbye(reason))
            pump.flush()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await ws.close()
        except TimeoutError:
            pump.abort()

    def wake(self) -> None:
        """A connection is needed: dial, if that was left off."""
        self._woken.set()

    async def _rest(self) -> None:
        """Wait until a connection is needed.

        An idle client that dialed at once would undo ``broker stop``: looking for the local broker starts it.
        """
        if self._needed is None:
            return
        try:
            while not self._closing and not self._needed():
                self.resting = True
                self._woken.clear()
                await self._woken.wait()
        finally:
            self.resting = False

    def schedule_flush(self) -> None:
        """Send what the session holds, once at the end of this turn of the loop or of ``at_once``."""
        if self._gathering:
            self._due = True
        elif self._pump is not None:
            self._pump.schedule_flush()

    def at_once(self, work: Callable[[], None]) -> None:
        """Do ``work`` and send what it has queued before this returns.

        For callbacks that take all there is in one go: waiting for the end of the turn would gather no more,
        and costs another turn.
        """
        self._gathering = True
        try:
            work()
        finally:
            self._gathering = False
            if self._due:
                self._due = False
                if self._pump is not None:
                    self._pump.flush()

    @property
    def socket_fd(self) -> int:
        """Descriptor of the present websocket's socket, -1 without one."""
        sock = self._ws.transport.get_extra_info("socket") if self._ws is not None else None
        return -1 if sock is None else sock.fileno()

    def abort(self) -> None:
        """Cut the present websocket; ``run`` dials again."""
        if self._pump is not None:
            self._pump.abort()

    # -- one websocket ----------------------------------------------------------------------------

    async def _dial(self) -> ClientConnection:
        uri, unix_path, token = await self._target()
        options: dict[str, Any] = {"unix": True, "path": unix_path} if unix_path else {}
        timeout = self._settings.handshake_timeout_seconds
        try:
            return await _Dial(
                uri,
                subprotocols=[Subprotocol(PROTOCOL_NAME)],
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                user_agent_header=None,
                compression=None,
                proxy=None,  # a proxy of the system is rarely meant for a broker
                max_size=MAX_MESSAGE_BYTES,
                max_queue=64,
                ping_interval=None,  # RENEW keeps the time, of clients too
                open_timeout=timeout,
                close_timeout=CLOSE_SECONDS,
                **options,
            )
        except InvalidStatus as exc:
            if exc.response.status_code == _BAD_REQUEST and "Sec-WebSocket-Protocol" in exc.response.headers:
                raise ProtocolVersionError(exc.response.body.decode("utf-8", "replace").strip()) from exc
            if exc.response.status_code not in _DENIED:
                raise
            variable = f"PREFECT_LITE_{self._role.upper()}_TOKEN"
            raise AuthenticationFailed(
                f"The broker at {unix_path or uri} refused the {self._role} token "
                f"({exc.response.status_code}). Set {variable} to the one in the broker's tokens.json."
            ) from exc
        except (InvalidURI, ValueError) as exc:
            if isinstance(exc, (OSError, UnicodeError)):
                raise  # a certificate or a name that does not fit; it may be mended
            raise ConfigurationError(f"{uri!r} is not a broker URL: {exc}.") from exc

    async def _target(self) -> tuple[str, str, str]:
        """(uri, path of the unix socket or "", token)"""
        from prefect_lite import embedded

        if not self._urls:
            self.starting = True
            try:
                target = await asyncio.to_thread(embedded.find_or_start, self._settings)
            finally:
                self.starting = False
            return "ws://localhost/", target.unix_path, getattr(target.tokens, self._role)
        from prefect_lite.embedded.home import configured_tokens

        token = getattr(configured_tokens(self._settings), self._role)
        url = self._urls[0]
        if url.startswith(UNIX_SCHEME):
            return "ws://localhost/", url.removeprefix(UNIX_SCHEME), token
        return url, "", token

    async def _use(self, ws: ClientConnection) -> Exception | None:
        """Run the session over ``ws`` until it is closed; return why, None if in good order."""
        session = self.session
        fault: Exception | None = None

        def failed(problem: ProtocolError) -> None:
            nonlocal fault
            fault = problem

        def arrived(messages: list[Message]) -> None:
            nonlocal fault
            if not self.connected and session.welcomed and session.welcome is not None:
                timer.cancel()
                self.connected = True
                self._failures = 0
                self.last_error = None
                self._on_up(session.welcome)
            for message in messages:
                if type(message) is Error and message.fatal:
                    fault = ProtocolError(message.code, message.text, True)
            self._on_messages(messages)

        session.connect()
        pump = Pump(
            ws,
            session,
            arrived,
            write_deadline_seconds=self._settings.write_deadline_seconds,
            on_error=failed,
        )
        timer = asyncio.get_running_loop().call_later(self._settings.handshake_timeout_seconds, pump.abort)
        self._ws, self._pump = ws, pump
        try:
            if self._closing:  # aclose() came while dialing
                await ws.close()
            await pump.run()
        finally:
            timer.cancel()
            self._ws = self._pump = None
        self._raise_if_final(fault)
        if fault is None and ws.close_code not in (CloseCode.NORMAL_CLOSURE, CloseCode.SERVICE_RESTART):
            reason = f"{ws.close_code} {ws.close_reason}".strip()
            text = f"The connection was lost ({reason})."
            fault = BrokerUnreachable(text)
        return fault

    def _raise_if_final(self, fault: Exception | None) -> None:
        if isinstance(fault, ProtocolError):
            if fault.code in _VERSION_CODES:
                raise ProtocolVersionError(fault.text)
            if fault.code == "role":
                raise AuthenticationFailed(fault.text)
            if fault.code == "namespace":
                raise ConfigurationError(
                    f"{fault.text} Set PREFECT_LITE_NAMESPACE to the broker's, or use another broker."
                )

    def _lost(self, fault: Exception | None) -> None:
        self.connected = False
        self.session.disconnected()
        self.last_error = fault
        if fault is not None and not self._closing:
            logger.debug("No connection: %s", fault, extra={"action": "reconnect"})
        self._on_down(fault)

    async def _back_off(self) -> None:
        """Full jitter: any time between nothing and a bound that doubles with each failure in a row."""
        settings = self._settings
        bound = min(
            settings.backoff_max_seconds, settings.backoff_min_seconds * 2.0 ** min(self._failures, 30)
        )
        self._failures += 1
        try:
            async with asyncio.timeout(random.uniform(0, bound)):
                await self._closed.wait()
        except TimeoutError:
            return


def _named(exc: Exception) -> Exception:
    """Some faults, such as a timeout, have no text of their own."""
    return exc if str(exc) else BrokerUnreachable(f"{type(exc).__name__} while connecting.")
