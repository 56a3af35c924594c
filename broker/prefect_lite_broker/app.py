"""The broker: the store, the sockets and the services, with one start and one stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from prefect_lite import version as package
from prefect_lite.embedded.home import configured_tokens, load_or_create_tokens
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.protocol.messages import Goodbye
from prefect_lite.settings import Settings
from prefect_lite_broker.auth import Auth, check_exposure
from prefect_lite_broker.dependencies import DependencyService
from prefect_lite_broker.hub import Hub
from prefect_lite_broker.maintenance import Audit, Periodic, Promoter, Reaper, Recheck, Retention, Service
from prefect_lite_broker.server import Listen, Listeners
from prefect_lite_broker.store import Store

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
"""How long a stopping broker waits for what it has begun in the store."""


class Broker:
    """One broker process.

    Attributes:
        broker_id: Name of this broker; the store uses it to ignore its own hints.
        addresses: Where it listens, as URLs; filled by ``start``.
        stop_asked: Set when an administrator or a signal asked it to stop; the owner then calls ``stop``.
        stop_reason: Why.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        broker_id: str,
        auth: Auth | None = None,
        insecure: bool = False,
        strict: bool = False,
    ) -> None:
        """
        Args:
            settings: Times, limits and the namespace.
            store: Not started yet; the broker starts and stops it.
            broker_id: The name the store was given too.
            auth: Tokens; by default those of the settings, else of the home directory (made if missing).
            insecure: Listen beyond loopback without TLS.
            strict: Refuse to start on a store that may lose runs, instead of warning.
        """
        self.settings = settings
        self.broker_id = broker_id
        self.addresses: list[str] = []
        self.stop_asked = asyncio.Event()
        self.stop_reason = ""
        self._store = store
        self._auth = auth if auth is not None else default_auth(settings)
        self._insecure = insecure
        self._strict = strict
        self._hub: Hub | None = None
        self._listeners: Listeners | None = None
        self._services: list[asyncio.Task[None]] = []

    async def start(self, *, unix_path: str = "", host: str = "", port: int | None = None) -> None:
        """Connect to the store, listen, and begin the services.

        Args:
            unix_path: Where to put a unix socket; "" for none.
            host: Address for TCP, with ``port``.
            port: None for no TCP, 0 for any free port.

        Raises:
            BrokerError: The store can't be reached or is not fit.
            ConfigurationError: The address can't be used, or may not be without tokens or TLS.
        """
        if port is not None:
            check_exposure(host, self._auth, tls=False, insecure=self._insecure)
        hints = _Hints()
        warnings = await self._store.start(hints)
        if warnings and self._strict:
            await self._store.stop()
            raise ConfigurationError(f"Not started, because of --strict: {' '.join(warnings)}")
        for warning in warnings:
            logger.warning("%s", warning)
        # Only now is the number of shards known.
        hub = Hub(self.settings, self._store, broker_id=self.broker_id, version=package.__version__)
        hub.ask_stop = self.ask_stop
        hints.hub = hub
        self._hub = hub
        self._start_services(hub)
        self._listeners = Listeners(hub, self._auth)
        self.addresses = self._listeners.addresses
        try:
            if unix_path:
                await self._listeners.listen(Listen(unix=Path(unix_path)))
            if port is not None:
                await self._listeners.listen(Listen(host=host, port=port))
        except BaseException:
            await self.stop()
            raise

    def _start_services(self, hub: Hub) -> None:
        settings = self.settings
        promoter = Promoter(hub.store, hub.dispatch, hub.watches)
        hub.delayed = promoter.due_in
        services: list[Service] = [
            Reaper(hub.store, hub.dispatch, hub.watches, settings.reap_seconds),
            promoter,
            Retention(hub.store, settings.retention_seconds),
            Audit(hub.store, settings.audit_seconds),
            Recheck(hub.store, hub.watches, settings.poll_seconds / 2),
            hub.room,
            DependencyService(hub.store, hub.dependencies, settings.poll_seconds),
            Periodic("poll", settings.poll_seconds, hub.poll),
        ]
        self._services = [hub.loop.create_task(service.run(), name=service.name) for service in services]

    @property
    def connections(self) -> int:
        """Open websockets."""
        return len(self._hub.peers) if self._hub is not None else 0

    @property
    def idle_seconds(self) -> float:
        """For how long nobody has been connected; 0 while somebody is."""
        if self._hub is None or self._hub.peers:
            return 0.0
        return self._hub.loop.time() - self._hub.empty_since

    def ask_stop(self, reason: str) -> None:
        """Have ``serve`` return, or the owner's wait on ``stop_asked``."""
        if not self.stop_asked.is_set():
            self.stop_reason = reason
            self.stop_asked.set()

    async def serve(self) -> None:
        """Wait until something asks the broker to stop."""
        await self.stop_asked.wait()

    async def stop(self) -> None:
        """Close the connections with 1012, finish what was begun in the store, and leave it."""
        hub = self._hub
        if hub is None:
            return
        self._hub = None
        hub.stopping = True
        hub.dispatch.stop()
        for peer in list(hub.peers):
            peer.send(Goodbye("the broker stops"))
        if self._listeners is not None:
            # A turn for the flushes, so that GOODBYE is before the close frame.
            await asyncio.sleep(0)
            await self._listeners.close()
        for task in self._services:
            task.cancel()
        await asyncio.gather(*self._services, return_exceptions=True)
        await hub.notices.aclose()
        await hub.settle(SETTLE_SECONDS)
        await self._store.stop()

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()


def default_auth(settings: Settings) -> Auth:
    """Tokens of the settings, else those of the home directory, made if it has none."""
    if not (settings.client_token or settings.worker_token or settings.admin_token):
        return Auth(load_or_create_tokens(settings)._asdict())
    return Auth(configured_tokens(settings)._asdict())


class _Hints:
    """Hands the store's hints on; the hub does not exist yet when the store starts."""

    hub: Hub | None = None

    def on_ended(self, run_ids: list[str]) -> None:
        if self.hub is not None:
            self.hub.watches.hinted(run_ids)

    def on_ready(self, task_keys: list[str]) -> None:
        if self.hub is not None:
            for key in task_keys:
                self.hub.dispatch.wake(key)

    def on_cancel(self, session: str, run_id: str, token: str) -> None:
        if self.hub is not None:
            self.hub.cancel_lease(session, run_id, token)

    def on_hints_lost(self) -> None:
        if self.hub is not None:
            self.hub.watches.reread()
            self.hub.dispatch.wake_all()
