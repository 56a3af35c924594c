"""One peer's turn in one round: the sessions it needs, what it measures, and what it could not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from harness.declaration import Peer
from harness.driving import PeerFailed
from harness.machine import Conditions
from harness.samples import Emit, make_sample, make_skip
from harness.session import Measured, Session

P = ParamSpec("P")

TIMEOUT_SECONDS = 60.0
MAX_COUNT = 60_000


class PeerRound:
    """What the cases use: a session that is started when first needed, and anew after a failure.

    Args:
        peer: Whose turn it is.
        round_number: From 0.
        python: The interpreter of the peer's venv.
        seconds: What one measurement should take.
        emit: Takes each sample.
        given_up: Case and variant of what failed, or a layout and "start"; not tried again. Added to.
    """

    def __init__(
        self,
        peer: Peer,
        round_number: int,
        python: Path,
        seconds: float,
        emit: Emit,
        given_up: set[tuple[str, str]],
    ) -> None:
        self.peer = peer
        self.python = python
        self.seconds = seconds
        self._round = round_number
        self._emit = emit
        self._given_up = given_up
        self._session: Session | None = None
        self._layout = ""

    @property
    def main_kind(self) -> str:
        """The kind of tasks that the peer names first."""
        return self.peer.kinds[0]

    def task(self, body: str, kind: str = "") -> str:
        """The name of the task of this body ("noop", "nap", "echo") and kind."""
        return f"async_{body}" if (kind or self.main_kind) == "async" else body

    def session(self, layout: str) -> Session:
        """The running session of this layout.

        Raises:
            PeerFailed: It did not start, now or when tried before.
        """
        if self._session is None or self._layout != layout:
            self.close()
            if (layout, "start") in self._given_up:
                raise PeerFailed(f"the layout {layout} did not start before, and is not tried again")
            self._layout = layout
            try:
                self._session = Session(self.peer, layout, self.python)
                self._session.__enter__()
            except PeerFailed:
                self._session = None
                self._given_up.add((layout, "start"))
                raise
        return self._session

    def measure(self, layout: str, request: dict[str, Any], timeout: float = TIMEOUT_SECONDS) -> Measured:
        """Let the driver of this layout do this; see `Session.measure`."""
        return self.session(layout).measure(request, timeout)

    def attempt(
        self,
        case: str,
        variant: str,
        measurement: Callable[Concatenate[PeerRound, str, P], None],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Measure one variant, unless the peer declares that it can't; a failure is recorded and survived."""
        if (case, variant) in self._given_up:
            return
        reason = self.peer.skip_reason(case, variant)
        if reason is not None:
            self.skip(case, variant, reason)
            return
        try:
            measurement(self, variant, *args, **kwargs)
        except (PeerFailed, OSError) as failure:
            self._given_up.add((case, variant))
            self.skip(case, variant, f"round {self._round}: {failure}")
            self.close()  # what it left behind would be measured with the next variant

    def record(
        self,
        case: str,
        variant: str,
        values: dict[str, float],
        count: int,
        conditions: Conditions,
        note: str = "",
    ) -> None:
        """Write down values by metric."""
        for metric, value in values.items():
            self._emit(
                make_sample(
                    self._round,
                    self.peer.name,
                    case,
                    variant,
                    metric,
                    value,
                    count=count,
                    conditions=conditions,
                    note=note,
                )
            )

    def skip(self, case: str, variant: str, reason: str) -> None:
        self._emit(make_skip(self.peer.name, case, variant, reason))

    def leave_out(self, case: str, variant: str) -> None:
        """Do not measure this in later rounds."""
        self._given_up.add((case, variant))

    def close(self) -> None:
        """End the session, if one runs."""
        if self._session is not None:
            self._session.close()
            self._session = None


def percentile(values: list[float], fraction: float) -> float:
    """The value that this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def latencies_ms(seconds: list[float], *names: str) -> dict[str, float]:
    """``p50_ms`` and its like, and ``max_ms``, of these seconds."""
    fractions = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: percentile(seconds, fractions[name]) * 1e3 for name in names}


def clamp(value: float, least: int, most: int) -> int:
    """A count between these two."""
    return max(least, min(most, int(value)))
