"""Two sessions back to back, for tests."""

from __future__ import annotations

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.protocol.session import Session

MIB = 1 << 20


def peer(role: str = "worker", *, max_payload_bytes: int = MIB) -> PeerSession:
    return PeerSession(role, "default", max_payload_bytes=max_payload_bytes)


def broker(*, max_payload_bytes: int = MIB, roles: frozenset[str] | None = None) -> BrokerSession:
    return BrokerSession(
        broker_id="b1",
        version="0.1",
        lease_seconds=15.0,
        renew_seconds=5.0,
        max_payload_bytes=max_payload_bytes,
        allowed_roles=roles or frozenset({"client", "worker", "admin"}),
    )


def move(source: Session, target: Session) -> list[m.Message]:
    """Deliver all that waits; returns what the target's application sees."""
    return [message for frame in [*source.data_to_send()] for message in target.receive(frame)]


def connected(
    role: str = "worker", *, max_payload_bytes: int = MIB, free: int = 0
) -> tuple[PeerSession, BrokerSession]:
    """A pair after HELLO and WELCOME."""
    one, other = peer(role, max_payload_bytes=max_payload_bytes), broker(max_payload_bytes=max_payload_bytes)
    if role == "worker":
        one.serve(["k"])
        one.set_free(free)
    one.connect()
    greet(one, other)
    return one, other


def greet(
    one: PeerSession, other: BrokerSession, *, resumed: bool = False, held: list[list[str]] | None = None
) -> list[m.Message]:
    """Complete the handshake; returns what the broker saw after WELCOME."""
    [hello] = move(one, other)
    assert isinstance(hello, m.Hello)
    other.welcome("s1", b"secret", 1, resumed=resumed, held=held or [])
    move(other, one)
    assert one.welcomed
    return move(one, other)


def run_id(number: int) -> str:
    return f"{number:032x}"
