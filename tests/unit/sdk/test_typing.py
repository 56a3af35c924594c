"""Type checkers accept what is right and report what is wrong, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SAMPLES = [str(path) for path in sorted(Path(__file__).parent.glob("typing_*sample.py"))]

Place = tuple[str, int]
"""Name of the file, line."""


def wanted(checker: str) -> set[Place]:
    marks = ("# error", f"# error ({checker})")
    return {
        (Path(sample).name, number)
        for sample in SAMPLES
        for number, line in enumerate(Path(sample).read_text().splitlines(), 1)
        if line.endswith(marks)
    }


def test_pyright_reports_exactly_the_wrong_lines() -> None:
    command = ["pyright", "--pythonpath", sys.executable, "--outputjson", *SAMPLES]
    command[0] = str(Path(sys.executable).with_name("pyright"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    report = json.loads(done.stdout)["generalDiagnostics"]
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in report
        if one["severity"] == "error"
    }
    wrong = set(found) ^ wanted("pyright")
    assert not wrong, {place: found.get(place) for place in wrong}


def test_mypy_reports_exactly_the_wrong_lines() -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        f"--cache-dir={ROOT / '.mypy_cache' / 'samples'}",
        "--follow-imports=silent",
        *SAMPLES,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    lines = re.findall(r"(typing_\w*sample\.py):(\d+): error", done.stdout)
    found = {(name, int(number)) for name, number in lines}
    assert found == wanted("mypy"), done.stdout
