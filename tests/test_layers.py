"""Who may import whom, read from the source; and what a process really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "prefect_lite": ROOT / "prefect_lite",
    "prefect_lite_worker": ROOT / "worker" / "prefect_lite_worker",
    "prefect_lite_broker": ROOT / "broker" / "prefect_lite_broker",
}
# The one sanctioned upward edge: `task.serve()` runs a worker in this process.
UPWARD = {"prefect_lite/serving.py": "prefect_lite_worker"}
# `embedded` is the home directory: the paths, locks and tokens that both sides share.
BROKER_MAY_USE = ("protocol", "states", "exceptions", "settings", "version", "embedded")
NEVER_IN_A_BROKER = ("cloudpickle", "pickle", "dill", "marshal", "shelve")


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module name, and whether it is imported late (in a function) or for types only."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"{path}: import from a parent package by dots"
            module = node.module or ""
            if node.level:
                module = ".".join(filter(None, [*package_of(path), module]))
            yield module, id(node) in inside
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) in inside


def package_of(path: Path) -> tuple[str, ...]:
    base = next(base for base in PACKAGES.values() if path.is_relative_to(base))
    return path.parent.relative_to(base.parent).parts


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("path", modules("prefect_lite"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_sdk_imports_neither_worker_nor_broker(path: Path) -> None:
    allowed = UPWARD.get(path.relative_to(ROOT).as_posix())
    for name, inside in imports(path):
        if top(name) in ("prefect_lite_worker", "prefect_lite_broker"):
            assert top(name) == allowed, f"{path} imports {name}"
            assert inside, f"{path} must import {name} inside a function"


@pytest.mark.parametrize("path", modules("prefect_lite_worker"), ids=lambda path: path.name)
def test_the_worker_does_not_import_the_broker(path: Path) -> None:
    assert not [name for name, _ in imports(path) if top(name) == "prefect_lite_broker"]


@pytest.mark.parametrize("path", modules("prefect_lite_broker"), ids=lambda path: path.name)
def test_the_broker_imports_only_what_it_may(path: Path) -> None:
    for name, _ in imports(path):
        assert top(name) not in NEVER_IN_A_BROKER, f"{path} imports {name}"
        assert top(name) != "prefect_lite_worker", f"{path} imports {name}"
        if name.startswith("prefect_lite."):
            assert name.split(".")[1] in BROKER_MAY_USE, f"{path} imports {name}"


def test_wire_verbs_are_declared_in_one_place() -> None:
    protocol = ROOT / "prefect_lite" / "protocol"
    for path in protocol.glob("*.py"):
        loaded = {top(name) for name, _ in imports(path)}
        if path.name != "pump.py":  # the only file of the protocol that does I/O
            assert not loaded & {"asyncio", "socket", "websockets", "anyio"}, f"{path} does I/O"


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def test_importing_the_protocol_loads_neither_tasks_nor_pickles() -> None:
    loaded = loaded_by("import prefect_lite.protocol.messages, prefect_lite.protocol.codec")
    assert not loaded & {"cloudpickle", "prefect_lite.tasks", "pydantic", "websockets", "redis"}


def test_the_broker_process_loads_neither_tasks_nor_cloudpickle() -> None:
    loaded = loaded_by("import prefect_lite_broker.embedded, prefect_lite_broker.__main__")
    assert not loaded & {"cloudpickle", "prefect_lite.tasks", "prefect_lite.keyring", "prefect_lite_worker"}


def test_importing_the_package_loads_no_dependency() -> None:
    loaded = loaded_by("import prefect_lite")
    heavy = {"pydantic", "pydantic_settings", "websockets", "redis", "cloudpickle", "uvloop", "rich", "typer"}
    assert not loaded & heavy
