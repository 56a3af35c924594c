"""The documents are true: links lead somewhere, code parses, every setting is described with its default."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from prefect_lite.flow_options import FlowOptions
from prefect_lite.local_runs import close_threads
from prefect_lite.options import Options
from prefect_lite.settings import Settings
from prefect_lite.testing import test_harness as harness

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
OUTCOME = re.compile(r"  # (→|raises) (.+)$")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        assert "://" in target or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_parse(document: Path) -> None:
    for block in CODE.findall(document.read_text()):
        compile(block, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_parse(example: Path) -> None:
    assert ast.get_docstring(ast.parse(example.read_text()))


def test_the_readme_example_is_the_one_that_is_shipped() -> None:
    block = CODE.findall((ROOT / "README.md").read_text())[0]
    shipped = ast.parse((ROOT / "examples" / "tasks.py").read_text()).body[1:]
    function = next(node for node in shipped if isinstance(node, ast.FunctionDef))
    del function.body[0]  # its docstring
    assert ast.dump(ast.Module(ast.parse(block).body, [])) == ast.dump(ast.Module(shipped, []))


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that the blocks of the guide are executed in, with a broker and a worker for its tasks."""
    module = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)
    with harness():
        yield module
    close_threads()  # of `submit` outside of flows


def execute(block: str, line: int, module: ModuleType, loop: asyncio.Runner) -> None:
    """Run a block statement by statement, and check the outcomes that its comments state."""
    lines = block.splitlines()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for statement in compile(block, "guide", "exec", flags | ast.PyCF_ONLY_AST).body:
        said = OUTCOME.search(lines[statement.end_lineno - 1])
        where = f"docs/tasks.md:{line + statement.lineno}"
        tree = (
            ast.Expression(statement.value)
            if isinstance(statement, ast.Expr)
            else ast.Module([statement], [])
        )
        compiled = compile(tree, where, "eval" if isinstance(tree, ast.Expression) else "exec", flags)

        def run(compiled: object = compiled) -> object:
            value = eval(compiled, module.__dict__)  # type: ignore[arg-type]
            return loop.run(value) if inspect.iscoroutine(value) else value

        if said and said[1] == "raises":
            with pytest.raises(eval(said[2], module.__dict__)):
                run()
        else:
            value = run()
            assert not said or repr(value) == repr(eval(said[2], module.__dict__)), f"{where}: {value!r}"


def test_the_guide_to_tasks_does_what_it_says(guide: ModuleType) -> None:
    text = (ROOT / "docs" / "tasks.md").read_text()
    with asyncio.Runner() as loop:
        for match in CODE.finditer(text):
            execute(match[1], text[: match.start(1)].count("\n"), guide, loop)


def test_the_guide_to_testing_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its tests that take no fixture; the fixtures have tests of their own."""
    module = ModuleType("guide_to_testing")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in CODE.findall((ROOT / "docs" / "testing.md").read_text()):
        exec(compile(block, "docs/testing.md", "exec"), module.__dict__)
        for test in [value for value in vars(module).values() if inspect.isfunction(value)]:
            if test.__module__ == module.__name__ and test.__name__.startswith("test_"):
                delattr(module, test.__name__)
                outcome = test() if not inspect.signature(test).parameters else None
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)


@pytest.mark.parametrize(("options", "section"), [(Options, "Options"), (FlowOptions, "Flows")])
def test_every_option_is_described(options: type, section: str) -> None:
    text = (ROOT / "docs" / "tasks.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert {field.name for field in fields(options)} - set(re.findall(r"`(\w+)`", text)) == set()


def documented_settings() -> dict[str, str]:
    found: dict[str, str] = {}
    for names, defaults, _ in ROW.findall((ROOT / "docs" / "configuration.md").read_text()):
        each = re.findall(r"\w+", names)
        values = (
            [value.strip(" `") for value in defaults.split(",")] if len(each) > 1 else [defaults.strip(" `")]
        )
        found.update(zip(each, values * len(each) if len(values) == 1 else values, strict=False))
    return found


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described_with_its_default(name: str) -> None:
    documented = documented_settings()
    assert name in documented
    default = Settings.model_fields[name].default
    if isinstance(default, int | float):
        assert float(documented[name]) == default
    elif isinstance(default, str) and default:
        assert documented[name] == default


def test_no_setting_is_described_that_does_not_exist() -> None:
    assert set(documented_settings()) <= set(Settings.model_fields)
