"""All 34 code examples of the specification, executed; its number is in each test's name.

The examples are executed as they are printed, with ``prefect`` replaced. Two are printed with a syntax error
and are corrected: 19 (``futures.wait():``) and 34 (``@flow my_flow():`` without ``def``). Examples 21 and 22
do something else than their comments say, here as in Prefect: 21 calls a task without its argument, which is
an error; in 22 ``print`` puts a second space behind the prefix.

Those that use ``delay``, ``apply_async`` or ``serve`` run against a real broker and worker processes. What an
example forgets (runs, futures) is watched from outside: by hooks and by ``sent``. ``randint`` is replaced
where chance decides, and the clock where a retry would be waited for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.client import get_client
from prefect_lite.exceptions import ParameterBindError
from prefect_lite.states import State
from tests.integration.harness import PrivateHome
from tests.reference.conftest import Program
from tests.reference.sections import EXAMPLES, execute, module_name
from tests.tools.waiting import until, wait_until

Run = Callable[[int], Program]
TIMEOUT = 15.0


def watch(task: Task[Any, Any]) -> list[tuple[Any, Any]]:
    """The runs of a task in the order of their completion, with what they returned."""
    ended: list[tuple[Any, Any]] = []

    @task.on_completion
    def remember(task: Any, run: Any, state: State[Any]) -> None:
        ended.append((run, state.data))

    return ended


def results(ended: list[tuple[Any, Any]]) -> list[Any]:
    return [result for _, result in ended]


def test_every_example_has_its_test() -> None:
    tested = sorted(
        int(match[1]) for match in (re.match(r"test_example_(\d\d)_", name) for name in globals()) if match
    )
    assert tested == [int(path.stem[2:]) for path in sorted(EXAMPLES.glob("*.py"))] == list(range(1, 35))


# -- @task ----------------------------------------------------------------------------------------------


def test_example_01_simple_task(run: Run) -> None:
    add = run(1).add
    assert isinstance(add, Task)
    assert add.name == "add"
    assert add(1, y=2) == 3


def test_example_02_async_task(run: Run) -> None:
    add = run(2).add
    assert add.isasync
    assert asyncio.run(add(1, 2)) == 3


def test_example_03_tags_and_description(run: Run) -> None:
    my_task = run(3).my_task
    assert my_task.tags == {"a", "b"}
    assert my_task.description == "This task is empty but its my first!"
    ended = watch(my_task)
    assert my_task() is None
    assert ended[0][0].tags == {"a", "b"}


def test_example_04_custom_name(run: Run) -> None:
    my_task = run(4).my_task
    assert my_task.name == "The Ultimate Task"
    ended = watch(my_task)
    my_task()
    assert ended[0][0].name.startswith("The Ultimate Task-")


def test_example_05_retries_with_a_delay(run: Run, drawn: list[int], sleeps: list[float]) -> None:
    my_task = run(5).my_task
    drawn += [5, 3, 4, 2]
    assert my_task() == 2
    assert sleeps == [5, 5, 5]
    drawn += [3, 3, 3, 3]
    with pytest.raises(ValueError, match="Retry me please!"):
        my_task()
    assert drawn == []
    assert sleeps == [5] * 6


def test_example_06_cached_for_a_day(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_HOME", str(tmp_path))
    my_task = run(6).my_task
    ended = [my_task(return_state=True) for _ in range(2)]
    assert [state.result() for state in ended] == ["hello", "hello"]
    assert ended[1].name == "Cached"


# -- Task.apply_async -----------------------------------------------------------------------------------


def test_example_07_task_for_apply_async(run: Run, served: PrivateHome) -> None:
    my_task = run(7).my_task
    assert my_task() == "hello world"
    assert my_task.apply_async().result(timeout=TIMEOUT) == "hello world"
    assert my_task.apply_async(kwargs={"name": "zaphod"}).result(timeout=TIMEOUT) == "hello zaphod"


def test_example_08_apply_async(run: Run, served: PrivateHome, sent: list[Any]) -> None:
    assert run(8).my_flow() is None
    (future,) = sent
    assert future.result(timeout=TIMEOUT) == "hello marvin"


def test_example_09_apply_async_and_wait(run: Run, served: PrivateHome, sent: list[Any]) -> None:
    assert run(9).my_flow() is None
    (future,) = sent
    assert future.state.is_completed()


def test_example_10_result_of_apply_async(
    run: Run, served: PrivateHome, capsys: pytest.CaptureFixture[str]
) -> None:
    run(10)
    assert capsys.readouterr().out == "hello marvin\n"


def test_example_11_order_without_data_on_workers(run: Run, served: PrivateHome, sent: list[Any]) -> None:
    run(11).my_flow()
    first, second = sent
    second.wait(timeout=TIMEOUT)
    with get_client(sync_client=True) as client:
        task_1, task_2 = (client.read_task_run(future.task_run_id) for future in (first, second))
    assert task_2.state.is_completed()
    assert task_1.end_time <= task_2.start_time
    assert [each.id for each in task_2.task_inputs["wait_for"]] == [task_1.id]


# -- Task.aserve ----------------------------------------------------------------------------------------


def test_example_12_aserve(served: PrivateHome) -> None:
    program = Program(12)

    async def serve_and_delay() -> int:
        serving = asyncio.ensure_future(execute(12, program.module))
        await until(lambda: "my_task" in program.module.__dict__)
        try:
            future = await program.my_task.adelay()
            return await future.result_async(timeout=TIMEOUT)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    assert asyncio.run(serve_and_delay()) == 1


# -- Task.delay -----------------------------------------------------------------------------------------


def test_example_13_task_for_delay(run: Run, served: PrivateHome) -> None:
    my_task = run(13).my_task
    assert my_task("ford") == "hello ford"
    assert my_task.delay().result(timeout=TIMEOUT) == "hello world"
    assert my_task.delay(name="ford").result(timeout=TIMEOUT) == "hello ford"


def test_example_14_delay(run: Run, served: PrivateHome, sent: list[Any]) -> None:
    assert run(14).my_flow() is None
    (future,) = sent
    assert future.result(timeout=TIMEOUT) == "hello marvin"


def test_example_15_delay_and_wait(run: Run, served: PrivateHome, sent: list[Any]) -> None:
    assert run(15).my_flow() is None
    (future,) = sent
    assert future.state.is_completed()


def test_example_16_result_of_delay(
    run: Run, served: PrivateHome, capsys: pytest.CaptureFixture[str]
) -> None:
    run(16)
    assert capsys.readouterr().out == "hello marvin\n"


# -- Task.map -------------------------------------------------------------------------------------------


def test_example_17_task_for_map(run: Run) -> None:
    assert run(17).my_task(1) == 2


def test_example_18_map(run: Run) -> None:
    assert run(18).my_flow() == [2, 3, 4]


def test_example_19_map_and_wait(run: Run) -> None:
    program = run(19)
    ended = watch(program.my_task)
    assert program.my_flow() is None
    assert sorted(results(ended[:3])) == [2, 3, 4]
    assert results(ended[3:]) == [11]


def test_example_20_results_of_map(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(20)
    assert capsys.readouterr().out == "2\n3\n4\n"


def test_example_21_order_without_data_in_a_map(run: Run) -> None:
    program = run(21)
    with pytest.raises(ParameterBindError, match="missing a required argument: 'x'"):
        program.my_flow()
    program.replace("task_1", task(name="task_1")(lambda: None))  # what is meant
    first, others = watch(program.task_1), watch(program.task_2)
    assert program.my_flow() == [None] * 3
    (task_1, _), *_ = first
    assert [task_1.end_time <= task_2.start_time for task_2, _ in others] == [True] * 3


def test_example_22_constants_in_a_map(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(22)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [f"Check it out:  {item}" for item in (1, 2, 3)]


def test_example_23_unmapped(run: Run) -> None:
    assert run(23).my_flow() == [[11, 21], [12, 22], [13, 23]]


# -- Task.serve -----------------------------------------------------------------------------------------


def test_example_24_serve(served: PrivateHome) -> None:
    my_task = task(key=f"{module_name(24)}.my_task")(lambda: 0)  # importing the example would serve it
    assert my_task.delay().result(timeout=TIMEOUT) == 1


# -- Task.submit ----------------------------------------------------------------------------------------


def test_example_25_task_for_submit(run: Run) -> None:
    assert run(25).my_task() == "hello"


def test_example_26_submit(run: Run) -> None:
    program = run(26)
    ended = watch(program.my_task)
    assert program.my_flow() is None
    assert results(ended) == ["hello"]


def test_example_27_submit_and_wait(run: Run) -> None:
    program = run(27)
    ended = watch(program.my_task)
    assert program.my_flow() is None
    assert results(ended) == ["hello"]


def test_example_28_result_of_submit(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(28)
    assert capsys.readouterr().out == "hello\n"


def test_example_29_async_task_in_an_async_flow(run: Run) -> None:
    program = run(29)
    ended = watch(program.my_async_task)
    assert asyncio.run(program.my_flow()) is None
    wait_until(lambda: results(ended) == [None])


def test_example_30_sync_task_in_an_async_flow(run: Run) -> None:
    program = run(30)
    ended = watch(program.my_task)
    assert asyncio.run(program.my_flow()) is None
    wait_until(lambda: results(ended) == ["hello"])


def test_example_31_order_without_data(run: Run) -> None:
    program = run(31)
    first, second = watch(program.task_1), watch(program.task_2)
    assert program.my_flow() is None
    ((task_1, _),), ((task_2, _),) = first, second
    assert task_1.end_time <= task_2.start_time
    assert [each.id for each in task_2.task_inputs["wait_for"]] == [task_1.id]


# -- Task.with_options ----------------------------------------------------------------------------------


def test_example_32_new_name(run: Run) -> None:
    program = run(32)
    assert (program.my_task.name, program.new_task.name) == ("My task", "My new task")
    assert (program.my_task(), program.new_task()) == (1, 1)


def test_example_33_new_retries(run: Run, drawn: list[int], sleeps: list[float]) -> None:
    program = run(33)
    drawn += [3] * 8
    for each in (program.new_task, program.my_task):
        with pytest.raises(ValueError, match="Retry me please!"):
            each()
    assert sleeps == [2] * 5 + [5]
    assert drawn == []


def test_example_34_changed_task_in_a_flow(run: Run) -> None:
    program = run(34)
    ended = watch(program.my_task)
    assert program.my_flow() is None
    ((new_run, result),) = ended
    assert result == 1
    assert new_run.name.startswith("My new task-")
