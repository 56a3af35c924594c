"""What the client gives back, under the names by which programs written for Prefect import it."""

from prefect_lite.client.schemas.objects import FlowRun, State, StateDetails, StateType, TaskRun

__all__ = ["FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
