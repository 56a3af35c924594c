"""Persisted results of flow runs; those of task runs are part of their transactions (``keeping.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_lite.engine import concluded
from prefect_lite.exceptions import BrokerError, ConfigurationError, SerializationError, StorageError
from prefect_lite.logging import get_run_logger
from prefect_lite.run_ends import Outcome, describe
from prefect_lite.states import State, StateType

if TYPE_CHECKING:
    from prefect_lite.context import FlowRunContext
    from prefect_lite.results import ResultStore
    from prefect_lite.thread_or_loop import Waits


def prepared(context: FlowRunContext) -> Waits[ResultStore | Outcome | None]:
    """Where the result of a run is to go; asked before it starts, as options may be wrong.

    Returns:
        The store; None if it can't be found out now, which is logged; the outcome of a run that is not to be
        started, because its options name no storage or serializer that there is.
    """
    from prefect_lite.results import store_for  # few flows need it

    try:
        store = yield from store_for(context)
        _ = store.serializer  # its name is looked up
    except ConfigurationError as exc:
        text = f"The run's result can't be persisted: {describe(exc)}"
        return (yield from concluded(context, Outcome("failed", error=exc, message=text)))
    except (BrokerError, StorageError) as exc:
        get_run_logger(context).warning("The result of this run will not be persisted: %s", exc)
        return None
    return store


def persisted(context: FlowRunContext, store: ResultStore, outcome: Outcome) -> Waits[Outcome]:
    """Persist what a run has returned, if it completed.

    A result that can't be kept is no failure of the run: it is logged, and the state has the value.

    Returns:
        The outcome, whose state has the record as data.
    """
    if outcome.kind != "completed":
        return outcome
    state = outcome.state
    value: Any = outcome.value if state is None else state.data
    record = store.create_result_record(value)
    try:
        yield from store.persisting(record)
    except (ConfigurationError, SerializationError, StorageError, BrokerError) as exc:
        get_run_logger(context).error("The result of this run is not persisted. %s", exc)
        return outcome
    if state is None:
        kept = State[Any](StateType.COMPLETED, "Completed", state_details=context.run.details, data=record)
    else:
        kept = state.model_copy(update={"data": record})
    if outcome.returned and isinstance(outcome.value, State):  # it stands for its data
        outcome = outcome._replace(value=value, returned=False)
    return outcome._replace(state=kept, kept=record)
