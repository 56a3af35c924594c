"""Reads the specification, a Markdown file, into facts: its examples, signatures and option lists.

How they are counted:

* A code block right below a heading shows the signature of what the heading names: 33, of which ``map`` has
  seven and ``submit`` six (their overloads).
* Every other code block is an example, numbered from 1 in the order of the file: 34.
* A list below ``**Args:**`` of ``@task``, of a class or of a method is an option list: 9. (Two more belong to
  plain functions, ``task_input_hash`` and ``exponential_backoff``, and only repeat their signatures.)

Examples carry over as they are, with ``prefect`` replaced by ``prefect_lite``, except for two that are
printed with a syntax error: see ``CORRECTIONS``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CORRECTIONS = (
    ("    futures.wait():\n", "    futures.wait()\n"),
    ("@flow\nmy_flow():\n", "@flow\ndef my_flow():\n"),
)
"""What is printed with a syntax error, and what is meant."""

HEADING = re.compile(r"^(#{3,4}) `(\w+)`$")
OPTION = re.compile(r"^\* `(\**)(\w+)`: ")
DEFAULT = re.compile(r"Defaults\s+to\s+`(\w+)`")
PLAIN_FUNCTIONS = frozenset({"task_input_hash", "exponential_backoff"})


@dataclass(frozen=True)
class Example:
    """A code example; ``of`` is the function, class or method that it explains."""

    number: int
    of: str
    code: str
    corrected: bool


@dataclass(frozen=True)
class Signature:
    """One printed signature; ``parameters`` are dicts of ``name``, ``kind``, ``annotation``, ``default``."""

    number: int
    of: str
    parameters: tuple[dict[str, str], ...]
    returns: str


@dataclass(frozen=True)
class OptionList:
    """The options of ``of`` in order; ``defaults`` are those that the text states."""

    number: int
    of: str
    names: tuple[str, ...]
    defaults: dict[str, str]


@dataclass(frozen=True)
class _Block:
    of: str
    kind: str  # "signature", "example" or "options"
    text: str


def read_examples(markdown: str) -> list[Example]:
    """All examples, ready to be executed."""
    found: list[Example] = []
    for number, block in enumerate(_of_kind(markdown, "example"), 1):
        code = re.sub(r"\bprefect\b", "prefect_lite", block.text)
        corrected = code
        for printed, meant in CORRECTIONS:
            corrected = corrected.replace(printed, meant)
        found.append(Example(number, block.of, corrected, corrected != code))
    return found


def read_signatures(markdown: str) -> list[Signature]:
    """All signatures, overloads one by one."""
    found: list[Signature] = []
    for number, block in enumerate(_of_kind(markdown, "signature"), 1):
        function = ast.parse(f"def {block.text.strip()}: ...").body[0]
        assert isinstance(function, ast.FunctionDef)
        returns = _source(function.returns)
        found.append(Signature(number, block.of, tuple(_parameters(function.args)), returns))
    return found


def read_option_lists(markdown: str) -> list[OptionList]:
    """All lists of options."""
    found: list[OptionList] = []
    for block in _of_kind(markdown, "options"):
        if block.of not in PLAIN_FUNCTIONS:
            found.append(_option_list(len(found) + 1, block))
    return found


def _option_list(number: int, block: _Block) -> OptionList:
    names: list[str] = []
    defaults: dict[str, str] = {}
    for item in re.split(r"^(?=\* )", block.text, flags=re.MULTILINE):
        if match := OPTION.match(item):
            names.append(match[1] + match[2])
            if default := DEFAULT.search(item):
                defaults[names[-1]] = default[1]
    return OptionList(number, block.of, tuple(names), defaults)


def _of_kind(markdown: str, kind: str) -> Iterator[_Block]:
    return (block for block in _blocks(markdown) if block.kind == kind)


def _blocks(markdown: str) -> Iterator[_Block]:
    owner = name = ""
    below_heading = False
    lines = iter(markdown.splitlines())
    for line in lines:
        if match := HEADING.match(line):
            owner = match[2] if match[1] == "###" else owner
            name = match[2] if match[1] == "###" else f"{owner}.{match[2]}"
            below_heading = True
        elif line.startswith("```python"):
            yield _Block(name, "signature" if below_heading else "example", _until(lines, "```"))
            below_heading = False
        elif line == "**Args:**":
            next(lines)  # empty
            yield _Block(name, "options", _until(lines, ""))
            below_heading = False
        elif line:
            below_heading = False


def _until(lines: Iterator[str], end: str) -> str:
    taken: list[str] = []
    for line in lines:
        if line.rstrip() == end:
            break
        taken.append(line)
    return "".join(f"{line}\n" for line in taken)


def _parameters(arguments: ast.arguments) -> Iterator[dict[str, str]]:
    assert not arguments.posonlyargs, "a parameter before / has no kind here"
    without = len(arguments.args) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [*[None] * without, *arguments.defaults]
    for argument, default in zip(arguments.args, defaults, strict=True):
        yield _parameter(argument, "positional or keyword", default)
    if arguments.vararg:
        yield _parameter(arguments.vararg, "variadic positional")
    for argument, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(argument, "keyword only", keyword_default)
    if arguments.kwarg:
        yield _parameter(arguments.kwarg, "variadic keyword")


def _parameter(argument: ast.arg, kind: str, default: ast.expr | None = None) -> dict[str, str]:
    facts = {"name": argument.arg, "kind": kind, "annotation": _source(argument.annotation)}
    if default is not None:
        facts["default"] = _source(default)
    return {key: value for key, value in facts.items() if value}


def _source(node: Any) -> str:
    """The text of an annotation or default; annotations that are printed as strings without their quotes."""
    if node is None:
        return ""
    return ast.unparse(node).replace("'", "")
