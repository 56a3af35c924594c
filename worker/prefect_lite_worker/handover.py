"""Giving runs away and taking them back, for those that are executed outside of the worker's process.

What leaves was verified here; it is signed anew with a key that only this worker and its executors share, and
what comes back is taken with that key alone and signed with the real one. So the real keys stay here, one
run's executor can't speak for another run, and nothing that the user's code has made is decoded here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect_lite import belonging, envelope
from prefect_lite.encoding import MSGPACK, decode
from prefect_lite.exceptions import EnvelopeRejected, PayloadTooLarge, StorageError
from prefect_lite.keyring import Keyring
from prefect_lite.protocol.messages import Finish, Release, Retry
from prefect_lite.run_ends import Outcome, describe
from prefect_lite_worker.desk import Desk, Ended
from prefect_lite_worker.leases import ActiveRun

if TYPE_CHECKING:
    from prefect_lite.protocol.messages import Run
    from prefect_lite_worker.execution import Execution
    from prefect_lite_worker.registry import AnyTask

_ENDS: dict[str, Any] = {kind.__name__: kind for kind in (Finish, Retry, Release)}


class GivenRun(ActiveRun):
    """A run that somebody else executes.

    Attributes:
        message: RUN as it came, without its body.
        place: Where it is executed, None while it waits.
        restarted: Its executor was lost before the code began, and it was given to another one.
    """

    __slots__ = ("message", "place", "restarted")

    def __init__(self, message: Run, task: AnyTask, desk: Desk) -> None:
        super().__init__(message, task, desk)
        self.message = message._replace(body=b"")
        self.place: Any = None
        self.restarted = False

    def begun(self, attempt: int, started: float, name: str | None) -> None:
        """The code of an attempt has begun over there."""
        self.attempt, self.started, self.inside = attempt, started, True
        if self.context is not None:
            self.context.task_run.run_count = attempt
            self.context.task_run.given_name = name
        self.desk.start(self, attempt != self.first)

    def interrupt(self) -> None:
        if self.place is not None:
            self.place.interrupt(self)


class Handover:
    """Seals calls for executors elsewhere, and takes the ends of runs from them. Safe from any thread.

    Args:
        execution: Of this worker.
        desk: Takes the ends.
        keyring: The real one.
        namespace: Part of what is signed.

    Attributes:
        shared: The keyring for executors; without keys if the real one has none.
    """

    def __init__(self, execution: Execution, desk: Desk, keyring: Keyring, namespace: str) -> None:
        self._execution = execution
        self._desk = desk
        self._keyring = keyring
        self._namespace = namespace
        self.shared = Keyring.generate() if keyring.signs else Keyring()

    def open(self, run: GivenRun) -> list[Any] | None:
        """Verify a call, and set the run's options.

        Returns:
            RUN for the executor; None when the run has ended over it.
        """
        execution, place = self._execution, (self._namespace, run.task_key, run.run_id)
        try:
            verified = envelope.verify_call(self._keyring, *place, run.body)
            changes = decode(MSGPACK, verified.options) if verified.options else {}
            options = execution.options_for(run.task, changes) if changes else run.task.options
            body = envelope.seal(self.shared, envelope.CALL, *place, *verified)
        except EnvelopeRejected as exc:
            execution.fail(run, exc, f"The call was refused: {exc}")
            return None
        except Exception as exc:
            execution.fail(run, exc, f"The call can't be decoded on this worker: {describe(exc)}")
            return None
        execution.enter(run, options, (), {}, changes.get(belonging.OPTION))
        return [*run.message._replace(body=body)]

    def outcomes(self, run: ActiveRun) -> list[list[Any]] | None:
        """The results of other runs that a run takes, for the executor; None before it has asked for them."""
        if run.outcomes is None:
            return None
        found: list[list[Any]] = []
        for state in run.outcomes.values():
            result = state.result
            if result is not None:
                place = (self._namespace, state.task_key, state.run_id)
                with suppress(EnvelopeRejected):  # else it is refused over there, which ends the run
                    result = envelope.reseal_outcome(self._keyring, self.shared, *place, result)
            found.append([*state._replace(result=result)])
        return found

    def close(self, run: GivenRun, told: list[Any] | None, kind: str, text: str, seconds: float) -> None:
        """An executor has told how a run ended; the arguments are what ``elsewhere.end_message`` packs."""
        outcome = Outcome(kind, message=text)
        if told is None:
            self._desk.end(Ended(run, None, outcome, seconds))
            return
        try:
            message = _ENDS[told[0]](*told[1:])._replace(run_id=run.run_id, token=run.token)
            if isinstance(message, Finish) and message.result is not None:
                message = message._replace(result=self._signed(run, message.result))
        except (PayloadTooLarge, StorageError) as exc:
            self._execution.fail(run, exc, str(exc), seconds)
        except Exception as exc:  # what came back is no end of a run
            self._execution.broken(run, exc)
        else:
            self._desk.end(Ended(run, message, outcome, seconds))

    def _signed(self, run: ActiveRun, result: bytes) -> bytes:
        place = (self._namespace, run.task_key, run.run_id)
        sealed = envelope.reseal_outcome(self.shared, self._keyring, *place, result)
        return self._execution.bounded(run, sealed)
