"""Runs, states, and what went into runs; each class has its home elsewhere."""

from prefect_lite.run_inputs import Constant, FlowRunResult, Parameter, RunInput, TaskRunResult
from prefect_lite.runs import FlowRun, TaskRun
from prefect_lite.states import TERMINAL_TYPES, State, StateDetails, StateType

TERMINAL_STATES = TERMINAL_TYPES

__all__ = [
    "TERMINAL_STATES",
    "Constant",
    "FlowRun",
    "FlowRunResult",
    "Parameter",
    "RunInput",
    "State",
    "StateDetails",
    "StateType",
    "TaskRun",
    "TaskRunResult",
]
