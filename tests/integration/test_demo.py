"""The demo from the command line: real results, nothing left behind, and it can fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.integration.harness import PrivateHome

WRONG = """
from prefect_lite.demo import run, tasks
count = tasks.count
tasks.count = lambda name, part=0, parts=1: {**count(name, part, parts), "gnomes": 1}
raise SystemExit(run.run_demo())
"""


def test_the_demo_checks_every_result_and_leaves_nothing(home: PrivateHome, tmp_path: Path) -> None:
    home.env["TMPDIR"] = str(tmp_path)
    before = set(os.listdir("/tmp"))
    facts = json.loads(home.cli("demo", "--json", timeout=90).stdout)
    assert facts["ok"]
    assert facts["runs"] == sum(step["runs"] for step in facts["steps"]) > 1_200
    assert facts["retries"] > 0
    assert {step["outcome"] for step in facts["steps"]} == {"Completed", "TimedOut", "Cancelled"}
    assert not list(tmp_path.glob("prefect-lite-demo-*"))
    assert not {name for name in set(os.listdir("/tmp")) - before if name.startswith("pld-")}
    assert home.processes() == []


def test_a_wrong_result_is_exit_code_1(home: PrivateHome) -> None:
    result = home.python(WRONG, check=False, timeout=90)
    assert result.returncode == 1
    assert "Wrong: texts: the words of harbour were counted wrong." in result.stdout
