"""The recording: a line per event whatever happens to the process, and hooks that say when they are lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import recording
from tests.chaos.hooks import HookLost, wrap
from tests.chaos.recording import Recorder, plain_id

REPOSITORY = Path(__file__).resolve().parents[2]


def test_lines_survive_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal; from tests.chaos import recording\n"
        "recording.start('client')\n"
        "for n in range(1000): recording.record('expect', run=n, type='COMPLETED')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = {**os.environ, recording.VARIABLE: str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    (file,) = tmp_path.glob("client-*.jsonl")
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["run"] for event in events] == [str(n) for n in range(1000)]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_a_process_without_a_folder_does_not_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(recording.VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match=recording.VARIABLE):
        recording.start("client")
    monkeypatch.setattr(recording, "_recorder", None)
    with pytest.raises(RuntimeError, match="not started by"):
        recording.record("expect", run="x", type="FAILED")


def test_ids_are_written_as_on_the_wire() -> None:
    assert plain_id("AAAAAAAA-bbbb-4ccc-8ddd-eeeeeeeeeeee") == "aaaaaaaabbbb4ccc8dddeeeeeeeeeeee"


class Product:
    def submit(self, msg: str, done: str) -> str:
        return msg + done


def test_a_hook_that_fits(tmp_path: Path) -> None:
    class Victim(Product):
        pass

    out = Recorder(tmp_path, "broker")

    def hooked(original: Any) -> Any:
        def recorded(self: Victim, msg: str, done: str) -> str:
            out.write("arrived", run=msg)
            return original(self, msg, done)

        return recorded

    wrap(Victim, "submit", "self msg done", hooked)
    assert Victim().submit("a", "b") == "ab"
    assert json.loads(next(tmp_path.iterdir()).read_text())["run"] == "a"
    out.close()


@pytest.mark.parametrize(("name", "parameters"), [("send", "self msg done"), ("submit", "self message done")])
def test_a_hook_that_is_lost_says_so(name: str, parameters: str) -> None:
    with pytest.raises(HookLost, match=r"Product\.s"):
        wrap(Product, name, parameters, lambda original: original)
