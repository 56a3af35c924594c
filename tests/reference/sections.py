"""The examples of a section of the specification as one program: later ones use what earlier define."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).parent / "examples"
IMPORTS = "from prefect_lite import flow, task\n"
"""What some sections take for granted."""

TITLE = re.compile(r"^# Example (\d+), of ([\w.]+)\.")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom, ast.Assign)


@cache
def sections() -> dict[int, str]:
    """The section of each example, by number."""
    titles = (TITLE.match(path.read_text()) for path in sorted(EXAMPLES.glob("*.py")))
    return {int(title[1]): title[2] for title in titles if title}


def code(number: int) -> str:
    """The text of an example."""
    return (EXAMPLES / f"ex{number:02}.py").read_text()


def module_name(number: int) -> str:
    """By which client and worker know the tasks of the example's section."""
    return "reference_" + sections()[number].rpartition(".")[2]


def only_defines(number: int) -> bool:
    """Whether executing the example calls nothing."""
    tree = compile(code(number), "", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return all(isinstance(statement, DEFINITIONS) for statement in tree.body)


def before(number: int) -> list[int]:
    """The earlier examples of the section that only define."""
    section = sections()[number]
    return [other for other in range(1, number) if sections()[other] == section and only_defines(other)]


def execute(number: int, module: ModuleType) -> Any:
    """Execute an example in the module; returns a coroutine if the example awaits at its top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile(code(number), str(EXAMPLES / f"ex{number:02}.py"), "exec", flags)
    return eval(compiled, module.__dict__)
