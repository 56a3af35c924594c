"""One truth, several brokers: submit at one, execute at another, wait at a third."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet

TASKS = """
    from prefect_lite import task

    @task
    def add(x, y):
        return x + y
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    made.write("tasks.py", TASKS)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


def test_submit_at_a_execute_at_b_wait_at_c(fleet: Fleet) -> None:
    fleet.start_worker("tasks", urls=[fleet.urls[1]])
    submit = fleet.write("submit.py", "import tasks\nprint('id', tasks.add.delay(1, 2).task_run_id)\n")
    sent = fleet.start_client(submit, urls=[fleet.urls[0]])
    assert sent.wait() == 0
    run_id = sent.output.split("id ")[1].split()[0]
    wait = fleet.write(
        "wait.py",
        "import sys\n"
        "from prefect_lite.futures import PrefectDistributedFuture\n"
        "print('got', PrefectDistributedFuture(sys.argv[1]).result(timeout=20))\n",
    )
    waiting = fleet.start_client(wait, run_id, urls=[fleet.urls[2]])
    assert waiting.wait() == 0
    assert "got 3" in waiting.output
    fleet.check_history()
