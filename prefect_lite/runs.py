"""Records of runs: what code inside a run, hooks and ``read_task_run`` are told about one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_lite import clock
from prefect_lite.states import NO_RESULT, State, StateDetails, StateType

if TYPE_CHECKING:
    from prefect_lite.run_inputs import RunInput

Transition = tuple[StateType, str, str | None, int]
"""Type, name and message of a state, and when it was entered, ``clock.time_ns()``."""

MAX_KEPT_MESSAGE = 2_000
"""Characters of a state's message that a record keeps: there are thousands of records, errors may be long."""

# Looking an enum's member up takes as long as a call.
_RUNNING = StateType.RUNNING
_FINAL = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED)

_NO_TAGS: frozenset[str] = frozenset()


class RunRecord:
    """What task runs and flow runs have in common.

    Attributes that most runs leave alone are class attributes, so that making a record costs a worker nothing
    for them. Results are not kept here: a record may outlive its run by far.

    Attributes:
        run_id: 32 lower-case hex digits.
        run_count: Number of the current attempt, from 1; 0 before the first.
        given_name: What the option for run names calls the run, if it does.
        version: Of the definition, if it has one.
        tags: Labels of the run: those of its definition and of ``tags(...)`` around the call.
        parent_task_run_id: The task run that called this one.
        call_tags: Of ``tags(...)`` around the call alone, for the code of a run on a worker to inherit.
        parameters: Arguments by parameter name, where they are kept (runs that were made but not started).
        transitions: The states entered so far; None where nobody keeps them (runs on workers, whose states
            are in the store).
        start_time_ns: When the first attempt seen by this process began, ``clock.time_ns()``; 0 before.
        end_time_ns: When it ended; 0 before.
        expected_start_time: When it was to start.
    """

    given_name: str | None = None
    version: str | None = None
    tags: frozenset[str] = _NO_TAGS
    call_tags: frozenset[str] = _NO_TAGS
    parent_task_run_id: UUID | None = None
    parameters: Mapping[str, Any] | None = None
    transitions: list[Transition] | None = None
    start_time_ns: int = 0
    end_time_ns: int = 0
    estimated_run_time = timedelta(0)
    _state: State[Any] | None = None
    _due: datetime | None = None

    def __init__(self, run_id: str, run_count: int = 0) -> None:
        self.run_id = run_id
        self.run_count = run_count

    @property
    def id(self) -> UUID:
        """The run's id."""
        return UUID(self.run_id)

    @property
    def name(self) -> str:
        """What people call the run."""
        return self.given_name or self.run_id

    @property
    def label(self) -> str:
        """Name of what runs, for sentences."""
        return self.run_id

    @property
    def state(self) -> State[Any] | None:
        """Where the run stands, without its result; None on a worker outside of hooks and conditions."""
        if self._state is None and self.transitions:
            return self._as_state(self.transitions[-1])
        return self._state

    @state.setter
    def state(self, state: State[Any] | None) -> None:
        self._state = state

    @property
    def state_type(self) -> StateType | None:
        """Type of the state."""
        state = self.state
        return state.type if state is not None else None

    @property
    def state_name(self) -> str | None:
        """Name of the state."""
        state = self.state
        return state.name if state is not None else None

    @property
    def running_name(self) -> str:
        """Name of the state that it is in during its current attempt."""
        return "Running" if self.run_count == 1 else "Retrying"

    @property
    def states(self) -> list[State[Any]]:
        """All states so far, in order, without results."""
        return [self._as_state(transition) for transition in self.transitions or ()]

    def moved(self, type: StateType, name: str, message: str | None = None) -> None:
        """The run has entered another state. Does nothing where no states are kept."""
        if self.transitions is None:
            return
        now = clock.time_ns()
        if message is not None and len(message) > MAX_KEPT_MESSAGE:
            message = f"{message[:MAX_KEPT_MESSAGE]}..."
        self.transitions.append((type, name, message, now))
        if type is _RUNNING:
            self.start_time_ns = self.start_time_ns or now
        elif type in _FINAL:
            self.end_time_ns = now

    def began(self) -> None:
        """An attempt is about to start."""
        self.moved(_RUNNING, self.running_name)

    def _as_state(self, transition: Transition) -> State[Any]:
        type, name, message, when = transition
        data = NO_RESULT if type is StateType.COMPLETED else None
        return State(type, name, message, timestamp=_moment(when), state_details=self.details, data=data)

    @property
    def details(self) -> StateDetails:
        """What its states say of the run."""
        return StateDetails(attempt=self.run_count)

    @property
    def created(self) -> datetime:
        """When the record was made (aware, UTC)."""
        first = self.transitions[0][3] if self.transitions else self.start_time_ns
        return _moment(first or clock.time_ns())

    @property
    def expected_start_time(self) -> datetime:
        """When the run was to start (aware, UTC)."""
        return self._due or self.created

    @expected_start_time.setter
    def expected_start_time(self, moment: datetime | None) -> None:
        self._due = moment

    @property
    def start_time(self) -> datetime | None:
        """When the first attempt began (aware, UTC); None before."""
        return _moment(self.start_time_ns) if self.start_time_ns else None

    @property
    def end_time(self) -> datetime | None:
        """When the run ended (aware, UTC); None before."""
        return _moment(self.end_time_ns) if self.end_time_ns else None

    @property
    def total_run_time(self) -> timedelta:
        """How long it was in running states."""
        total = 0
        entries: Sequence[Transition] = self.transitions or ()
        following = [*(entry[3] for entry in entries[1:]), clock.time_ns()]
        for (type, _, _, since), until in zip(entries, following, strict=False):
            if type is StateType.RUNNING:
                total += until - since
        return timedelta(microseconds=total / 1_000)


class TaskRun(RunRecord):
    """The record of a task run.

    Attributes:
        task_key: Key of the task.
        task_name: Its name.
        flow_run_id: The flow run that it belongs to.
        cache_key: Under which its result is kept for others.
        parameter_names: Of the task, for ``task_inputs`` of a run into which nothing else went.
    """

    flow_run_id: UUID | None = None
    cache_key: str | None = None
    parameter_names: tuple[str, ...] = ()
    _inputs: dict[str, list[RunInput]] | None = None
    _dynamic_key: str | None = None

    def __init__(
        self, run_id: str, task_key: str, task_name: str, run_count: int = 1, version: str | None = None
    ) -> None:
        self.run_id = run_id
        self.task_key = task_key
        self.task_name = task_name
        self.run_count = run_count
        if run_count:  # it is about to begin
            self.start_time_ns = clock.time_ns()
        if version is not None:
            self.version = version

    @property
    def name(self) -> str:
        """What ``task_run_name`` says, else task name and the first digits of the id."""
        return self.given_name or f"{self.task_name}-{self.run_id[:3]}"

    @property
    def label(self) -> str:
        return self.task_name

    @property
    def task_inputs(self) -> dict[str, list[RunInput]]:
        """By parameter, what went into it from other runs; ``wait_for`` and ``__parents__`` too."""
        if self._inputs is None:  # of most runs nobody asks
            self._inputs = {name: [] for name in self.parameter_names}
        return self._inputs

    @task_inputs.setter
    def task_inputs(self, inputs: dict[str, list[RunInput]]) -> None:
        self._inputs = inputs

    @property
    def task_version(self) -> str | None:
        """The same as ``version``."""
        return self.version

    @property
    def dynamic_key(self) -> str:
        """Tells the runs of a task apart."""
        return self._dynamic_key or f"{self.task_name}-{self.run_id}"

    @dynamic_key.setter
    def dynamic_key(self, key: str) -> None:
        self._dynamic_key = key

    @property
    def details(self) -> StateDetails:
        return StateDetails(
            task_run_id=self.id,
            task_key=self.task_key,
            attempt=self.run_count,
            flow_run_id=self.flow_run_id,
        )

    def __repr__(self) -> str:
        return f"TaskRun({self.name!r}, run_id={self.run_id!r}, run_count={self.run_count})"


class FlowRun(RunRecord):
    """The record of a flow run.

    Attributes:
        flow_name: Name of the flow.
        parent_flow_run_id: The flow run inside which it was called.
        root_flow_run_id: The outermost of these; its own id when there is none.
    """

    parent_flow_run_id: UUID | None = None

    def __init__(self, run_id: str, flow_name: str, version: str | None = None) -> None:
        super().__init__(run_id)
        self.flow_name = flow_name
        self.root_flow_run_id = UUID(run_id)
        if version is not None:
            self.version = version

    @property
    def name(self) -> str:
        """What ``flow_run_name`` says, else flow name and the first digits of the id."""
        return self.given_name or f"{self.flow_name}-{self.run_id[:3]}"

    @property
    def flow_version(self) -> str | None:
        """The same as ``version``."""
        return self.version

    @property
    def label(self) -> str:
        return self.flow_name

    @property
    def details(self) -> StateDetails:
        return StateDetails(attempt=self.run_count, flow_run_id=self.id)

    def __repr__(self) -> str:
        return f"FlowRun({self.name!r}, run_id={self.run_id!r}, run_count={self.run_count})"


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
