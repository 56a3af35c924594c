"""The ``__main__`` rule: one class under one name, whichever way the file is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULE = """
import dataclasses, enum, sys
from prefect_lite import task
from prefect_lite.encoding import decode, encode

@dataclasses.dataclass
class Job:
    n: int

class Color(enum.Enum):
    RED = 1

class MyError(Exception):
    pass

@task
def work(job):
    return job

def helper():
    return 3

if __name__ == "__main__":
    codec, data = encode([Job(3), Color.RED, MyError("x"), helper, Job, work])
    assert decode(codec, data)[0] == Job(3)
    sys.stdout.write(f"{work.key} {data.hex()}")
"""
READER = """
import importlib, sys
from prefect_lite.encoding import PICKLE, decode
job, color, error, helper, kind, work = decode(PICKLE, bytes.fromhex(sys.argv[2]))
module = importlib.import_module(sys.argv[1])
assert type(job) is kind is module.Job and job.n == 3
assert color is module.Color.RED and helper is module.helper and work is module.work
try:
    raise error
except module.MyError:
    print("fine")
"""


def run(*command: str, cwd: Path, code: str = "") -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = [sys.executable, "-c", code, *command] if code else [sys.executable, *command]
    done = subprocess.run(
        arguments, cwd=cwd, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "tasks.py").write_text(MODULE)
    (tmp_path / "jobs.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("jobs.py",), "jobs"),
        (("-m", "jobs"), "jobs"),
        (("app/tasks.py",), "app.tasks"),
        (("-m", "app.tasks"), "app.tasks"),
    ],
)
def test_a_program_and_its_importers_agree(project: Path, command: tuple[str, ...], name: str) -> None:
    key, data = run(*command, cwd=project).split()
    assert key == f"{name}.work"
    assert run(name, data, cwd=project, code=READER).strip() == "fine"


def test_a_program_without_tasks_sends_its_classes_along(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(
        "import dataclasses, sys\n"
        "from prefect_lite.encoding import encode\n"
        "@dataclasses.dataclass\n"
        "class Job:\n"
        "    n: int\n"
        "sys.stdout.write(encode(Job(3))[1].hex())\n"
    )
    data = run("client.py", cwd=tmp_path)
    (tmp_path / "client.py").unlink()
    code = (
        "import sys; from prefect_lite.encoding import decode;print(decode(2, bytes.fromhex(sys.argv[1])).n)"
    )
    assert run(data, cwd=tmp_path, code=code).strip() == "3"


def test_code_without_a_file_keeps_main_as_its_module(tmp_path: Path) -> None:
    code = "from prefect_lite import task\n@task\ndef f(): return 1\nprint(f.key)"
    assert run(cwd=tmp_path, code=code).strip() == "__main__.f"


SPAWNING = """
import multiprocessing
from prefect_lite import task
from prefect_lite.encoding import encode

class Job:
    pass

@task
def work():
    return 1

def child(queue):
    queue.put((work.key, encode(Job)[1]))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get() == (work.key, encode(Job)[1])
    process.join()
    print("same")
"""


def test_a_child_of_multiprocessing_has_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "spawning.py").write_text(SPAWNING)
    assert run("spawning.py", cwd=tmp_path).strip() == "same"
