"""A broker that does what a test tells it, on a unix socket and a thread of its own.

It speaks the real protocol through the real sessions and has no store: SUBMITs are answered by rules, runs
end when the test says so (or at once, with ``execute``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.http11 import Request, Response

from prefect_lite.envelope import open_call, seal_error, seal_value
from prefect_lite.keyring import Keyring
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.pump import Pump
from tests.tools.waiting import wait_until

Reply = list[m.Message]


class Peer:
    """A connection."""

    def __init__(self, broker: ScriptedBroker, ws: ServerConnection) -> None:
        self.session = BrokerSession(
            broker_id="scripted", lease_seconds=5.0, renew_seconds=1.0, max_payload_bytes=1 << 20
        )
        self.pump = Pump(
            ws, self.session, lambda batch: broker.receive(self, batch), write_deadline_seconds=5
        )
        self.ws = ws

    def send(self, message: m.Message) -> None:
        self.session.send(message)
        self.pump.schedule_flush()


class ScriptedBroker:
    """See the module's docstring.

    Attributes:
        submits: What has arrived, in order.
        watches: WATCHed run ids, in order, repeats included.
        connections: How many there have been.
        accept: Answers a SUBMIT; None leaves it unanswered.
        questions: Answers to QUERYs by kind.
        execute: Called with each call's arguments; ends the run at once with what it returns or raises.
        deny: HTTP status that refuses the websocket.
    """

    def __init__(self, folder: Path, keyring: Keyring) -> None:
        self.path = folder / "b.sock"
        self.keyring = keyring
        self.submits: list[m.Submit] = []
        self.watches: list[str] = []
        self.cancels: list[str] = []
        self.connections = 0
        self.tokens: list[str] = []
        self.accept: Callable[[m.Submit], m.Message | None] = lambda submit: m.Accepted([submit.run_id])
        self.questions: dict[str, Callable[[Any], tuple[bool, Any]]] = {}
        self.execute: Callable[..., Any] | None = None
        self.deny: HTTPStatus | None = None
        self.states: dict[str, m.RunState] = {}
        self.peers: set[Peer] = set()
        self._watchers: dict[str, set[Peer]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-broker")
        self._server: Server | None = None
        self._thread.start()

    # -- called by tests --------------------------------------------------------------------------

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Close every connection and stop listening; what was submitted stays known."""
        self._call(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Abort every connection."""
        self._loop.call_soon_threadsafe(lambda: [peer.pump.abort() for peer in self.peers])

    def end(self, run_id: str, value: Any = None, *, error: Exception | None = None, **fields: Any) -> None:
        """End a run."""
        submit = next(one for one in self.submits if one.run_id == run_id)
        self._loop.call_soon_threadsafe(self._end, submit, value, error, fields)

    def wait_for_submits(self, count: int) -> list[m.Submit]:
        wait_until(lambda: len(self.submits) >= count, 5, f"{count} SUBMITs")
        return self.submits

    def call_of(self, submit: m.Submit) -> Any:
        return open_call(self.keyring, "default", submit.task_key, submit.run_id, submit.body)

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    # -- on its own thread ------------------------------------------------------------------------

    async def _start(self) -> None:
        self._server = await unix_serve(
            self._serve, str(self.path), compression=None, process_request=self._request, close_timeout=1,
            subprotocols=["prefect-lite.v1"], ping_interval=None,  # type: ignore[list-item]
        )  # fmt: skip

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close(code=1012)
            await self._server.wait_closed()
            self._server = None
            self.path.unlink(missing_ok=True)

    def _request(self, _: ServerConnection, request: Request) -> Response | None:
        from websockets.datastructures import Headers

        self.tokens.append(request.headers.get("Authorization", ""))
        if self.deny is not None:
            return Response(self.deny.value, "no", Headers({"Content-Length": "0"}), b"")
        return None

    async def _serve(self, ws: ServerConnection) -> None:
        self.connections += 1
        peer = Peer(self, ws)
        self.peers.add(peer)
        try:
            await peer.pump.run()
        finally:
            self.peers.discard(peer)

    def receive(self, peer: Peer, messages: list[m.Message]) -> None:
        for message in messages:
            getattr(self, f"_on_{type(message).__name__.lower()}", lambda *_: None)(peer, message)

    def _on_hello(self, peer: Peer, _: m.Hello) -> None:
        peer.session.welcome("s", b"secret", 1)
        peer.pump.schedule_flush()

    def _on_submit(self, peer: Peer, submit: m.Submit) -> None:
        self.submits.append(submit)
        answer = self.accept(submit)
        if answer is not None:
            peer.send(answer)
        if self.execute is not None and isinstance(answer, m.Accepted):
            call = self.call_of(submit)
            try:
                self._end(submit, self.execute(*call.args, **call.kwargs), None, {})
            except Exception as exc:
                self._end(submit, None, exc, {})

    def _on_watch(self, peer: Peer, message: m.Watch) -> None:
        self.watches.extend(message.run_ids)
        known = {submit.run_id for submit in self.submits}
        for run_id in message.run_ids:
            if run_id in self.states or run_id not in known:
                peer.send(self.states.get(run_id, m.RunState(run_id)))
            else:
                self._watchers.setdefault(run_id, set()).add(peer)

    def _on_unwatch(self, peer: Peer, message: m.Unwatch) -> None:
        for run_id in message.run_ids:
            self._watchers.get(run_id, set()).discard(peer)

    def _on_cancel(self, peer: Peer, message: m.Cancel) -> None:
        self.cancels.append(message.run_id)
        known = message.run_id in {submit.run_id for submit in self.submits}
        status = "cancelled" if known else "unknown"
        peer.send(m.Answer(message.request, True, {"run_id": message.run_id, "status": status}))

    def _on_query(self, peer: Peer, message: m.Query) -> None:
        answer = self.questions.get(message.what)
        if answer is not None:
            peer.send(m.Answer(message.request, *answer(message.arg)))

    def _end(self, submit: m.Submit, value: Any, error: Exception | None, fields: dict[str, Any]) -> None:
        place = (self.keyring, "default", submit.task_key, submit.run_id)
        state = m.RunState(
            submit.run_id, "COMPLETED", "Completed", "", submit.task_key, 1, 0, 1_000, 2_000, 3_000, 0,
            seal_value(*place, value),
        )  # fmt: skip
        if error is not None:
            text = f"{type(error).__name__}: {error}"
            state = state._replace(
                type="FAILED", name="Failed", message=text, result=seal_error(*place, error)
            )
        self.states[submit.run_id] = state = state._replace(**fields)
        for peer in self._watchers.pop(submit.run_id, set()):
            peer.send(state)
