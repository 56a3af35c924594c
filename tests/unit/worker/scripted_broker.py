"""The other end of a worker's connection, doing what a test tells it: no store, no queue, no rules."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, unix_serve

from prefect_lite import envelope
from prefect_lite.encoding import encode_linked_call
from prefect_lite.keyring import Keyring
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.pump import Pump
from prefect_lite.run_ids import new_run_id

NAMESPACE = "default"


class ScriptedBroker:
    """Pushes runs as credit allows, acknowledges their ends and keeps all it hears.

    Attributes:
        finished, retried, released: By run id.
        started: (run id, attempt) in order of arrival.
        acknowledge: Set to False to leave ends unanswered.
        refuse: Set to True to close new connections at once.
        watches: WATCHed run ids, in order, repeats included.
        states: What is answered to a WATCH; without an entry the answer waits for ``tell``.
    """

    def __init__(self, path: Path, keyring: Keyring, lease_seconds: float = 1.5) -> None:
        self.path = path
        self.keyring = keyring
        self.finished: dict[str, m.Finish] = {}
        self.retried: dict[str, m.Retry] = {}
        self.released: dict[str, m.Release] = {}
        self.started: list[tuple[str, int]] = []
        self.logs: list[m.Log] = []
        self.served: list[list[str]] = []
        self.goodbyes: list[str] = []
        self.watches: list[str] = []
        self.unwatches: list[str] = []
        self.states: dict[str, m.RunState] = {}
        self.readies = 0
        self.acknowledge = True
        self.refuse = False
        self.connections = 0
        self._tokens: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._waiting: deque[tuple[str, str, str, int, int, bytes]] = deque()
        self._lease_seconds = lease_seconds
        self._session: BrokerSession | None = None
        self._pump: Pump | None = None
        self._ws: ServerConnection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> ScriptedBroker:
        self._thread.start()
        assert self._up.wait(5)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    # -- what tests do ----------------------------------------------------------------------------

    def seal(
        self, run_id: str, key: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> bytes:
        return envelope.seal_call(self.keyring, NAMESPACE, key, run_id, args, kwargs, options or {})

    def push(
        self, key: str, *args: Any, attempt: int = 1, options: dict[str, Any] | None = None,
        body: bytes | None = None, **kwargs: Any,
    ) -> str:  # fmt: skip
        """Queue a run for the worker; returns its id."""
        run_id = new_run_id()
        if body is None:
            body = self.seal(run_id, key, *args, options=options, **kwargs)
        self.push_all([(run_id, key, attempt, body)])
        return run_id

    def push_all(self, runs: list[tuple[str, str, int, bytes]]) -> None:
        for run_id, key, attempt, body in runs:
            token = secrets.token_hex(8)
            self._tokens[run_id], self._keys[run_id] = token, key
            self._waiting.append((run_id, token, key, attempt, 0, body))
        self._call(self._push)

    def cancel(self, run_id: str) -> None:
        self._call(lambda: self._send(m.Cancel(0, run_id, self._tokens[run_id])))

    def revoke(self, run_id: str) -> None:
        self._call(lambda: self._send(m.Revoke([[run_id, self._tokens[run_id]]])))

    def cut(self) -> None:
        """Drop the connection."""
        self._call(lambda: self._pump.abort() if self._pump is not None else None)

    def end(self, run_id: str, timeout: float = 10.0) -> m.Finish:
        """Wait for a run's FINISH."""
        wait_until(lambda: run_id in self.finished, timeout)
        return self.finished[run_id]

    def outcome(self, run_id: str, timeout: float = 10.0) -> Any:
        """Wait for a run's value, or raise its exception."""
        finish = self.end(run_id, timeout)
        assert finish.result is not None, finish
        kind, value = envelope.open_outcome(
            self.keyring, NAMESPACE, self._keys[run_id], run_id, finish.result
        )
        if kind == "error":
            raise value
        return value

    def ended(self, *value: Any, error: Exception | None = None, **fields: Any) -> m.RunState:
        """The STATE of another run, with a result: one value, or an exception."""
        run_id, key = fields.pop("run_id", new_run_id()), "other.task"
        place = (self.keyring, NAMESPACE, key, run_id)
        if error is not None:
            result = envelope.seal_error(*place, error)
            fields = {"type": "FAILED", "name": "Failed", "message": repr(error), **fields}
        else:
            result = envelope.seal_value(*place, value[0]) if value else None
            fields = {"type": "COMPLETED", "name": "Completed", **fields}
        return m.RunState(**{"run_id": run_id, "task_key": key, "result": result, **fields})

    def tell(self, state: m.RunState) -> None:
        """Answer this to WATCHes, those of the past too."""
        self.states[state.run_id] = state
        self._call(lambda: self._send(state))

    def link(self, key: str, *args: Any, **kwargs: Any) -> str:
        """``push`` with placeholders among the arguments."""
        run_id = new_run_id()
        codec, payload = encode_linked_call(args, kwargs, allow_pickle=bool(self.keyring))
        body = envelope.seal(self.keyring, envelope.CALL, NAMESPACE, key, run_id, codec, b"", payload)
        self.push_all([(run_id, key, 1, body)])
        return run_id

    def is_running(self, run_id: str) -> bool:
        return any(started == run_id for started, _ in self.started)

    def wait_running(self, run_id: str) -> None:
        wait_until(lambda: self.is_running(run_id))

    # -- the connection ---------------------------------------------------------------------------

    def _call(self, callback: Callable[[], Any]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(callback)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        protocol = m.PROTOCOL_NAME
        async with unix_serve(
            self._on_connection, str(self.path), subprotocols=[protocol], compression=None,
            ping_interval=None, max_size=None,
        ):  # fmt: skip
            self._up.set()
            await self._over.wait()

    async def _on_connection(self, ws: ServerConnection) -> None:
        if self.refuse:
            return
        self.connections += 1
        renew = self._lease_seconds / 3
        session = BrokerSession(
            broker_id="scripted", lease_seconds=self._lease_seconds, renew_seconds=renew,
            max_payload_bytes=1_000_000,
        )  # fmt: skip
        pump = Pump(ws, session, self._on_messages, write_deadline_seconds=5)
        self._ws, self._session, self._pump = ws, session, pump
        await pump.run()

    def _send(self, message: m.Message) -> None:
        if self._session is not None and self._pump is not None:
            self._session.send(message)
            self._pump.schedule_flush()

    def _push(self) -> None:
        session = self._session
        if session is None or not session.welcomed:
            return
        while self._waiting and session.credit > 0:
            session.push_run(*self._waiting.popleft())
        if self._pump is not None:
            self._pump.schedule_flush()

    def _on_messages(self, messages: list[m.Message]) -> None:
        session = self._session
        assert session is not None
        answers: list[list[str]] = []
        for message in messages:
            if isinstance(message, m.Hello):
                held = [
                    [run_id, self._tokens[run_id]] for run_id in self._tokens if not self._over_for(run_id)
                ]
                waiting = {run[0] for run in self._waiting}
                resumed = bool(message.session)
                session.welcome(
                    "session", b"secret", message.epoch + 1, resumed=resumed,
                    held=[lease for lease in held if lease[0] not in waiting] if resumed else (),
                )  # fmt: skip
            elif isinstance(message, m.Finish):
                self.finished[message.run_id] = message
                answers.append([message.run_id, message.token, "ok"])
            elif isinstance(message, m.Retry):
                self.retried[message.run_id] = message
                answers.append([message.run_id, message.token, "ok"])
            elif isinstance(message, m.Release):
                self.released[message.run_id] = message
                answers.append([message.run_id, message.token, "ok"])
            elif isinstance(message, m.Started):
                self.started.append((message.run_id, message.attempt))
            elif isinstance(message, m.Renew):
                self._send(m.Revoke([]))
            elif isinstance(message, m.Serve):
                self.served.append(message.task_keys)
            elif isinstance(message, m.Log):
                self.logs.append(message)
            elif isinstance(message, m.Goodbye):
                self.goodbyes.append(message.reason)
            elif isinstance(message, m.Watch):
                self.watches.extend(message.run_ids)
                for watched in message.run_ids:
                    if watched in self.states:
                        self._send(self.states[watched])
            elif isinstance(message, m.Unwatch):
                self.unwatches.extend(message.run_ids)
            elif isinstance(message, m.Ready):
                self.readies += 1
        if answers and self.acknowledge:
            session.send(m.Done(answers))
        self._push()

    def _over_for(self, run_id: str) -> bool:
        return run_id in self.finished or run_id in self.retried or run_id in self.released


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Return as soon as the condition holds; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.002)
