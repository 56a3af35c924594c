"""The command line as a user types it."""

from __future__ import annotations

import json
import signal
import socket
import time

import pytest

from prefect_lite.embedded import find_or_start
from prefect_lite.version import __version__
from tests.integration.harness import PrivateHome, wait_until

TASKS = """
    from prefect_lite import get_run_logger, task

    @task
    def add(x, y):
        get_run_logger().info("adding %s", x)
        return x + y

    @task
    def other():
        return "other"
"""


def test_version_and_help_are_quick(home: PrivateHome) -> None:
    assert home.cli("version").stdout.strip() == __version__
    begin = time.perf_counter()
    text = home.cli("--help").stdout
    seconds = time.perf_counter() - begin
    for command in ("broker", "worker", "run", "demo", "version"):
        assert command in text
    assert seconds < 5  # loose on purpose: what it imports is checked below
    loaded = home.python(
        """
        import sys
        sys.argv = ["prefect-lite", "--help"]
        from prefect_lite.cli import main
        main()
        print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
        """
    ).stdout.splitlines()[-1]
    assert not {"pydantic", "websockets", "redis", "uvloop", "cloudpickle"} & set(loaded.split())


def test_an_unknown_command_is_wrong_usage(home: PrivateHome) -> None:
    result = home.cli("nonsense", check=False)
    assert result.returncode == 2
    assert "No such command" in result.stderr


def test_status_starts_nothing(home: PrivateHome) -> None:
    result = home.cli("broker", "status", check=False)
    assert result.returncode == 1
    assert "No local broker runs" in result.stdout
    assert home.processes() == []
    assert "No local broker runs" in home.cli("broker", "stop").stdout


def test_a_broker_in_the_foreground_until_ctrl_c(home: PrivateHome) -> None:
    broker = home.start("broker", "-m", "prefect_lite.cli", "broker")
    broker.wait_for("Listening on")
    assert broker.pid == home.broker_pid, "the command line is replaced by the broker, not its parent"
    text = home.cli("broker", "status").stdout
    assert f"pid {broker.pid}" in text
    facts = json.loads(home.cli("broker", "status", "--json").stdout)
    assert facts["state"] == "running"
    assert facts["stats"]["broker"]["version"] == __version__
    broker.signal(signal.SIGINT)
    assert broker.wait() == 0
    assert "Traceback" not in broker.output
    wait_until(lambda: home.processes() == [], what="Valkey's end")


def test_stop_ends_a_broker_that_was_started_by_a_client(home: PrivateHome) -> None:
    find_or_start(home.settings)
    assert "Stopped the broker" in home.cli("broker", "stop").stdout
    assert home.status.state == "stopped"


def test_status_and_stop_name_the_workers(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    worker = home.start("worker", "-m", "prefect_lite.cli", "worker", "tasks:add,other")
    worker.wait_for("Connected")
    assert f"(pid {worker.pid}): tasks.add, tasks.other; 0 runs." in home.cli("broker", "status").stdout
    (facts,) = json.loads(home.cli("broker", "status", "--json").stdout)["workers"]
    assert (facts["pid"], facts["task_keys"]) == (worker.pid, ["tasks.add", "tasks.other"])
    text = home.cli("broker", "stop").stdout
    assert "1 worker was connected and will start it again at once" in text
    assert f"stop it first: pid {worker.pid} (" in text
    worker.wait_for("Connected again")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_broker_with_a_port_and_a_program_with_its_url(home: PrivateHome) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = home.start("broker", "-m", "prefect_lite.cli", "broker", "--port", str(port))
    broker.wait_for(f"ws://127.0.0.1:{port}")
    home.env["PREFECT_LITE_BROKER_URL"] = f"ws://127.0.0.1:{port}"
    assert f"ws://127.0.0.1:{port}" in home.cli("broker", "status").stdout
    assert "is stopping" in home.cli("broker", "stop").stdout
    assert broker.wait() == 0


@pytest.mark.parametrize("command", ["broker", "broker start"])
def test_a_taken_port_is_one_sentence(home: PrivateHome, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = home.cli(*command.split(), "--port", str(port), check=False)
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr
    wait_until(lambda: home.processes() == [], what="the end of what was started")


def test_a_url_where_nobody_answers_is_one_sentence(home: PrivateHome) -> None:
    home.env["PREFECT_LITE_BROKER_URL"] = "ws://127.0.0.1:9"
    result = home.cli("broker", "status", check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("prefect-lite: No broker answered at ws://127.0.0.1:9 within ")
    assert "Start one with 'prefect-lite broker', or correct PREFECT_LITE_BROKER_URL." in line


def test_a_bad_setting_is_one_sentence(home: PrivateHome) -> None:
    home.env["PREFECT_LITE_LEASE_SECONDS"] = "soon"
    result = home.cli("broker", "status", check=False)
    assert result.returncode == 1
    assert "PREFECT_LITE_LEASE_SECONDS" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_from_the_command_line_and_a_run_from_end_to_end(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    worker = home.start("worker", "-m", "prefect_lite.cli", "worker", "tasks:add", "--limit", "2")
    run_id = home.python(
        "from tasks import add; f = add.delay(1, 2); assert f.result(timeout=20) == 3; print(f.task_run_id)"
    ).stdout.strip()
    text = home.cli("run", "show", run_id).stdout
    assert "Completed (COMPLETED)" in text
    assert "tasks.add" in text
    facts = json.loads(home.cli("run", "show", run_id, "--json").stdout)
    assert (facts["type"], facts["attempt"]) == ("COMPLETED", 1)
    wait_until(lambda: "adding 1" in home.cli("run", "log", run_id).stdout, what="the run's log")
    assert "already ended" in home.cli("run", "cancel", run_id).stdout
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_run_that_waits_says_why_and_can_be_cancelled(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    run_id = home.python("from tasks import add; print(add.delay(1, 2).task_run_id)").stdout.split()[-1]
    text = home.cli("run", "show", run_id).stdout
    assert "Scheduled (SCHEDULED)" in text
    assert "tasks.add" in text.partition("waits")[2]
    assert "Cancelled." in home.cli("run", "cancel", run_id).stdout
    assert "Cancelled (CANCELLED)" in home.cli("run", "show", run_id).stdout


@pytest.mark.parametrize(
    ("run_id", "sentence"),
    [
        ("0" * 32, "no record of run"),
        ("what", "prefect-lite: 'what' is not a run id; it takes 32 hex digits."),
    ],
)
def test_a_run_that_is_not_there(home: PrivateHome, run_id: str, sentence: str) -> None:
    result = home.cli("run", "show", run_id, check=False)
    assert result.returncode == 1
    assert sentence in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def (", "SyntaxError"),
        ("import no_such_thing", "no_such_thing"),
        ("x = 1\nraise ValueError('why')", "why"),
    ],
)
def test_a_module_that_does_not_import_shows_its_own_lines_only(
    home: PrivateHome, source: str, said: str
) -> None:
    home.write("broken.py", source)
    done = home.cli("worker", "broken", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("The module 'broken' can't be imported:")
    assert said in done.stderr
    assert "broken.py" in done.stderr
    assert "importlib" not in done.stderr
    assert "prefect_lite_worker" not in done.stderr


def test_the_log_of_a_run_without_lines_says_so(home: PrivateHome) -> None:
    done = home.cli("run", "log", "0" * 32)
    assert "No log lines are kept of run " + "0" * 32 in done.stderr
    assert not done.stdout
