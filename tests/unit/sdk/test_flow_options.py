"""What ``@flow`` takes, refuses and shows."""

from __future__ import annotations

import dataclasses
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from prefect_lite.exceptions import (
    ConfigurationError,
    InvalidNameError,
    OptionTypeError,
    ReservedArgumentError,
)
from prefect_lite.flow_options import HOOKS, FlowOptions
from prefect_lite.flows import Flow, flow
from prefect_lite.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner


def hook(*_: Any) -> None: ...


GIVEN: dict[str, Any] = {
    "name": "load",
    "description": "Loads.",
    "version": "7",
    "flow_run_name": "load-{x}",
    "retries": 2,
    "retry_delay_seconds": 0.5,
    "task_runner": ThreadPoolTaskRunner(3),
    "timeout_seconds": 5.0,
    "validate_parameters": False,
    "log_prints": True,
    "persist_result": True,
    "result_storage": "local/here",
    "result_serializer": "json",
    "cache_result_in_memory": False,
    **dict.fromkeys(HOOKS, (hook,)),
}


def test_all_options_are_kept_and_changed_one_by_one() -> None:
    assert set(GIVEN) == {field.name for field in dataclasses.fields(FlowOptions)}
    made = Flow(lambda x: x, **GIVEN)
    for name, value in GIVEN.items():
        assert getattr(made.options, name) == value
        default = getattr(FlowOptions(), name)
        changed = made.with_options(**{name: default})
        assert getattr(changed.options, name) == default
        others = {other for other in GIVEN if other != name}
        assert all(getattr(changed.options, other) == GIVEN[other] for other in others)
    assert made.options == FlowOptions(**GIVEN)  # the flow itself was left alone


def test_a_flow_shows_its_options() -> None:
    made = Flow(lambda x: x, **GIVEN)
    assert (made.name, made.description, made.version) == ("load", "Loads.", "7")
    assert (made.retries, made.retry_delay_seconds, made.timeout_seconds) == (2, 0.5, 5.0)
    assert made.task_runner == ThreadPoolTaskRunner(3)
    assert made.log_prints is made.persist_result is True
    assert made.should_validate_parameters is False
    assert [getattr(made, f"{name}_hooks") for name in HOOKS] == [[hook]] * 5
    with pytest.raises(AttributeError, match="no_such"):
        made.no_such  # noqa: B018


def test_defaults() -> None:
    @flow
    def my_own_flow() -> None:
        """What it does."""

    assert my_own_flow.name == "my-own-flow"
    assert my_own_flow.description == my_own_flow.__doc__ == "What it does."
    assert my_own_flow.retries == 0
    assert my_own_flow.on_completion_hooks == []
    assert flow(lambda: 1).name == "unknown-lambda"
    assert flow(retries=None)(my_own_flow.fn).retries == 0  # type: ignore[arg-type]
    assert flow(timeout_seconds=0)(my_own_flow.fn).timeout_seconds is None


@pytest.mark.parametrize(
    ("option", "value", "kind", "words"),
    [
        ("name", 5, TypeError, "must be a string"),
        ("name", "a/b", InvalidNameError, "invalid character"),
        ("version", 3, TypeError, "must be a string"),
        ("flow_run_name", 5, TypeError, "Expected string or callable for 'flow_run_name'"),
        ("retries", -1, ValueError, ">= 0"),
        ("retries", "a", TypeError, "whole number"),
        ("retry_delay_seconds", -1, ValueError, ">= 0"),
        ("retry_delay_seconds", [1, 2], TypeError, "must be a number"),
        ("timeout_seconds", -1, ValueError, ">= 0"),
        ("task_runner", 5, TypeError, "task_runner must be a task runner"),
        ("log_prints", "x", TypeError, "True or False"),
        ("validate_parameters", None, TypeError, "True or False"),
        ("on_completion", 5, TypeError, "Expected iterable for 'on_completion'"),
        ("on_crashed", [5], TypeError, "Expected callables in 'on_crashed'"),
    ],
)
def test_impossible_values_are_refused(option: str, value: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        flow(**{option: value})
    assert isinstance(caught.value, ConfigurationError)


def test_what_is_no_option_or_no_function_is_refused() -> None:
    with pytest.raises(OptionTypeError, match=r"unexpected keyword argument.*Did you mean 'retries'"):
        flow(retrys=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="'fn' must be callable"):
        flow(5)  # type: ignore[call-overload]

    def reserved(return_state: bool) -> None: ...

    with pytest.raises(ReservedArgumentError, match="return_state"):
        flow(reserved)


def test_editors_and_help_list_the_options() -> None:
    names = {field.name for field in dataclasses.fields(FlowOptions)}
    for shown in (flow, Flow.__init__, Flow.with_options):
        assert names <= set(inspect.signature(shown).parameters)


def test_task_runners_are_compared_by_their_settings() -> None:
    assert ThreadPoolTaskRunner(2).duplicate() == ThreadPoolTaskRunner(2) != ThreadPoolTaskRunner(3)
    processes = ProcessPoolTaskRunner(2, 5, 1_000_000)
    assert processes.duplicate() == processes != ProcessPoolTaskRunner(2)
    assert (ThreadPoolTaskRunner().name, processes.name) == ("threadpool", "processpool")
    for made in (ThreadPoolTaskRunner, ProcessPoolTaskRunner):
        with pytest.raises(ConfigurationError, match="max_workers must be at least 1"):
            made(max_workers=0)
    with pytest.raises(ConfigurationError, match="max_tasks_per_child"):
        ProcessPoolTaskRunner(max_tasks_per_child=0)
    assert FlowOptions(task_runner=ThreadPoolExecutor).task_runner is ThreadPoolExecutor
