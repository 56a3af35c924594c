"""The shape of the code: module and function sizes, and names that say nothing."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("prefect_lite", "worker/prefect_lite_worker", "broker/prefect_lite_broker")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 500
MAX_MEDIAN = 200
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {"utils", "helpers", "common", "misc", "util", "helper"}
# Module and function with the reason why it may be longer.
LONG_FUNCTIONS: dict[tuple[str, str], str] = {}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_no_module_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if (short(path), node.name) not in LONG_FUNCTIONS:
                assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_modules_are_short_on_the_whole() -> None:
    assert statistics.median(path.read_text().count("\n") for path in MODULES) <= MAX_MEDIAN


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_names_say_what_is_inside(path: Path) -> None:
    assert path.stem not in EMPTY_NAMES


@pytest.mark.parametrize("path", [path for path in MODULES if path.stat().st_size], ids=short)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_init_files_where_a_folder_is_no_package() -> None:
    for folder in ("worker", "broker", "tests", "deploy", "benchmarks", "examples"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_no_lua_outside_the_scripts_folder() -> None:
    for path in MODULES:
        assert "redis.call(" not in path.read_text(), f"{short(path)} holds Lua; it belongs in scripts/*.lua"
