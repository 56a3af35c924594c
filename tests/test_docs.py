"""The documents are true: links lead somewhere, code parses, every setting is described with its default."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from prefect_lite.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
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
