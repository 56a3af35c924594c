"""Results of other runs that runs of this worker take: fetched once each, by WATCH on its own connection.

An executor that finds placeholders in a call leaves a note on the desk and lets go of the run; the connection
thread asks for what the run needs and hands it back with the sealed outcomes, which an executor opens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prefect_lite.protocol.messages import RunState
from prefect_lite.states import TERMINAL_TYPES, StateType

if TYPE_CHECKING:
    from prefect_lite.protocol.peer_session import PeerSession
    from prefect_lite_worker.leases import ActiveRun

REFRESH_SECONDS = 1.0
"""What has not been answered for so long is asked for again: these runs have ended, so an answer is due. Each
further time takes twice as long, as the answer may be on its way behind large ones."""
MAX_REFRESH_SECONDS = 30.0
OVERDUE_ASKS = 2
"""Asked for again so often, and still no answer: it has not ended. It is a dead run that was replayed, and
may need the slot of the one that takes its result."""
KEPT_BYTES = 4 * 1024 * 1024
KEPT_RUNS = 1_000
KEPT_RESULT_BYTES = KEPT_BYTES // 16
"""Results of so many runs are remembered: what one run gives is often taken by many."""


class _Asked:
    """A run whose outcome is awaited.

    Attributes:
        runs: By whom.
        again_at: When to ask once more (monotonic seconds).
        seconds: And how long after that.
        repeats: How often it was asked for again.
        unknown: The broker has said so once.
    """

    __slots__ = ("again_at", "repeats", "runs", "seconds", "unknown")

    def __init__(self, now: float) -> None:
        self.runs: dict[ActiveRun, None] = {}
        self.again_at = now + REFRESH_SECONDS
        self.seconds = REFRESH_SECONDS
        self.repeats = 0
        self.unknown = False


class Upstreams:
    """What the connection thread knows of outcomes that runs wait for.

    Args:
        session: Asks the broker.
        clock: Monotonic seconds.
    """

    def __init__(self, session: PeerSession, clock: Callable[[], float]) -> None:
        self._session = session
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._missing: dict[ActiveRun, int] = {}
        self._look_at = 0.0
        self._kept: OrderedDict[str, RunState] = OrderedDict()
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._missing)

    def fetch(self, needs: Iterable[tuple[ActiveRun, Iterable[str]]]) -> list[ActiveRun]:
        """Collect the outcomes that runs need.

        Args:
            needs: Runs and the ids of others.

        Returns:
            Those that have all they need already; others come out of ``arrived``.
        """
        ready: list[ActiveRun] = []
        wanted: list[str] = []
        now = self._clock()
        for run, run_ids in needs:
            outcomes = run.outcomes = dict[str, RunState]()
            missing = 0
            for run_id in run_ids:
                known = self._kept.get(run_id)
                if known is not None:
                    self._kept.move_to_end(run_id)
                    outcomes[run_id] = known
                    continue
                missing += 1
                asked = self._asked.get(run_id)
                if asked is None:
                    asked = self._asked[run_id] = _Asked(now)
                    wanted.append(run_id)
                asked.runs[run] = None
            if missing:
                self._missing[run] = missing
            else:
                ready.append(run)
        self._ask(wanted)
        return ready

    def arrived(self, state: RunState) -> list[ActiveRun]:
        """A STATE has come; returns the runs that now have all they need."""
        run_id = state.run_id
        asked = self._asked.get(run_id)
        if asked is None or (state.type and state.type not in TERMINAL_TYPES):
            return []
        if not state.type and not asked.unknown:
            # Perhaps from a broker that lost sight of it for a moment: once more before we say so.
            asked.unknown = True
            self._ask([run_id])
            return []
        del self._asked[run_id]
        self._keep(state)
        ready: list[ActiveRun] = []
        for run in asked.runs:
            if run.outcomes is not None:
                run.outcomes[run_id] = state
            self._missing[run] -= 1
            if not self._missing[run]:
                del self._missing[run]
                ready.append(run)
        return ready

    def drop(self, run: ActiveRun) -> None:
        """A run that has ended here needs nothing any more."""
        if self._missing.pop(run, None) is None:
            return
        run.outcomes = {}
        gone: list[str] = []
        for run_id, asked in self._asked.items():
            if run in asked.runs:
                del asked.runs[run]
                if not asked.runs:
                    gone.append(run_id)
        for run_id in gone:
            del self._asked[run_id]
        self._session.unwatch(gone)

    def tick(self, now: float) -> bool:
        """Ask again for what should have come; returns whether something is to be sent."""
        if not self._asked or now < self._look_at:
            return False
        self._look_at = now + REFRESH_SECONDS / 4
        if self._session.receiving:
            return False  # the link is busy with answers; those asked for again would only queue up behind
        late = [run_id for run_id, asked in self._asked.items() if asked.again_at <= now]
        for run_id in late:
            asked = self._asked[run_id]
            asked.seconds = min(2 * asked.seconds, MAX_REFRESH_SECONDS)
            asked.again_at = now + asked.seconds
            asked.repeats += self._session.welcomed  # of a broker that is away nothing can be said
        self._ask(late)
        return bool(late)

    def overdue(self) -> list[ActiveRun]:
        """The runs that wait for others that seem not to have ended."""
        late = [asked.runs for asked in self._asked.values() if asked.repeats >= OVERDUE_ASKS]
        return list(dict.fromkeys(run for runs in late for run in runs))

    def _ask(self, run_ids: list[str]) -> None:
        if run_ids:
            self._session.watch(run_ids)

    def _keep(self, state: RunState) -> None:
        """Remember a result that can't change any more; a run that failed may be replayed."""
        size = len(state.result or b"")
        if state.type != StateType.COMPLETED or size > KEPT_RESULT_BYTES:
            return
        self._kept[state.run_id] = state
        self._kept_bytes += size
        while self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_RUNS:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.result or b"")
