"""Type checkers accept what is right and report what is wrong, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SAMPLE = Path(__file__).with_name("typing_sample.py")


def wanted() -> set[int]:
    lines = SAMPLE.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def test_pyright_reports_exactly_the_wrong_lines() -> None:
    command = ["pyright", "--pythonpath", sys.executable, "--outputjson", str(SAMPLE)]
    command[0] = str(Path(sys.executable).with_name("pyright"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    report = json.loads(done.stdout)["generalDiagnostics"]
    found = {
        one["range"]["start"]["line"] + 1: one["message"] for one in report if one["severity"] == "error"
    }
    assert set(found) == wanted(), {line: found.get(line) for line in set(found) ^ wanted()}


def test_mypy_reports_exactly_the_wrong_lines() -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--follow-imports=silent",
        str(SAMPLE),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    found = {int(number) for number in re.findall(r"typing_sample.py:(\d+): error", done.stdout)}
    assert found == wanted(), done.stdout
