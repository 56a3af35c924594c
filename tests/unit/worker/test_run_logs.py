"""Log lines of runs and of the worker itself, when something is wrong with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect_lite_worker.terminal import Terminal, TerminalHandler
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.logging import SinkHandler, get_logger, get_run_logger

go = threading.Event()
logged = threading.Event()


@pytest.fixture(autouse=True)
def _closed() -> Any:
    go.clear()
    logged.clear()
    yield
    go.set()


@task(key="w.bad")
def bad() -> str:
    get_run_logger().info("value %d", "abc")
    return "fine"


@task(key="w.talks", log_prints=True)
def talks() -> None:
    print("before")
    logged.set()
    go.wait(20)
    print("after")


@task(key="w.quick")
def quick() -> str:
    return "quick"


def lines(broker: Any, run_id: str) -> list[str]:
    return [line[3].rpartition("| ")[2] for log in broker.logs if log.run_id == run_id for line in log.lines]


def test_a_bad_log_call_fails_no_run(
    broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own raises on purpose
    serve(bad)
    assert broker.outcome(broker.push("w.bad")) == "fine"
    wait_until(lambda: "Logging error" in capsys.readouterr().err)


def test_our_handlers_have_no_lock_to_be_left_locked() -> None:
    assert SinkHandler().lock is None
    assert TerminalHandler(Terminal()).lock is None


def test_a_bad_record_is_reported_and_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    handler = TerminalHandler(Terminal())
    handler.handle(logging.LogRecord("x", 20, __file__, 1, "value %d", ("abc",), None))
    assert "Logging error" in capsys.readouterr().err


def test_lines_written_during_an_outage_reach_the_runs_log(broker: Any, serve: Any) -> None:
    served = serve(talks)
    run_id = broker.push("w.talks")
    assert logged.wait(10)
    wait_until(lambda: lines(broker, run_id) == ["before"])
    broker.refuse = True
    broker.cut()
    wait_until(lambda: not served.app._parts.connection.connected)
    go.set()
    wait_until(lambda: not served.app.current)
    broker.refuse = False
    broker.end(run_id)
    assert lines(broker, run_id) == ["before", "after"]


class Blocking(logging.Handler):
    """A handler of the program that waits for something, on whatever thread logs."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.entered = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "lease of run" in record.getMessage():
            self.entered.set()
            self.open.wait(20)


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    handler = Blocking()
    logging.getLogger().addHandler(handler)
    yield handler
    handler.open.set()
    logging.getLogger().removeHandler(handler)


def test_a_handler_of_the_program_that_blocks_holds_up_no_run(
    broker: Any, serve: Any, blocking: Blocking
) -> None:
    serve(talks, quick)
    run_id = broker.push("w.talks")
    broker.wait_running(run_id)
    broker.revoke(run_id)  # logged as a warning
    assert blocking.entered.wait(10)
    assert broker.outcome(broker.push("w.quick")) == "quick"
    blocking.open.set()


def test_the_relay_is_taken_off_again(broker: Any, serve: Any) -> None:
    served = serve(quick)
    assert not get_logger("worker").propagate
    served.app.stop("the test says so", grace_seconds=0.0)
    served.wait()
    assert get_logger("worker").propagate
    assert not get_logger("worker").handlers


def test_records_reach_the_programs_handlers(
    broker: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="prefect_lite"):
        served = serve(quick)
        broker.outcome(broker.push("w.quick"))
        served.app.stop("the test says so", grace_seconds=0.0)
        served.wait()
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("Completed quick") for message in messages)
