"""Writes the facts of the specification into this folder, or checks that they are what it says.

    python tests/reference/extract.py path/to/prefect-tasks-api.md [--check]

``examples/exNN.py``, ``signatures.toml`` and ``options.toml`` are made here and never edited, so that the
tests need no specification at hand and can't drift from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]  # run as a program, from anywhere

from tests.reference.specification import (  # noqa: E402
    Example,
    OptionList,
    Signature,
    read_examples,
    read_option_lists,
    read_signatures,
)

MADE = "# Made by tests/reference/extract.py; do not edit.\n"


def files(markdown: str) -> dict[Path, str]:
    """What each file has to hold."""
    made = {
        HERE / "examples" / f"ex{example.number:02}.py": example_text(example)
        for example in read_examples(markdown)
    }
    made[HERE / "signatures.toml"] = MADE + "".join(map(signature_text, read_signatures(markdown)))
    made[HERE / "options.toml"] = MADE + "".join(map(options_text, read_option_lists(markdown)))
    return made


def example_text(example: Example) -> str:
    """One file of ``examples``."""
    correction = " A syntax error in print is corrected." if example.corrected else ""
    return f"# Example {example.number}, of {example.of}.{correction}\n\n{example.code}"


def signature_text(signature: Signature) -> str:
    """One table of ``signatures.toml``."""
    lines = [
        "",
        "[[signature]]",
        f"number = {signature.number}",
        f"of = {json.dumps(signature.of)}",
        f"returns = {json.dumps(signature.returns)}",
        "parameters = [",
        *(f"  {inline_table(parameter)}," for parameter in signature.parameters),
        "]",
    ]
    return "\n".join(lines) + "\n"


def options_text(options: OptionList) -> str:
    """One table of ``options.toml``."""
    lines = [
        "",
        "[[options]]",
        f"number = {options.number}",
        f"of = {json.dumps(options.of)}",
        "names = [",
        *(f"  {json.dumps(name)}," for name in options.names),
        "]",
        f"defaults = {inline_table(options.defaults)}",
    ]
    return "\n".join(lines) + "\n"


def inline_table(facts: dict[str, str]) -> str:
    """A TOML table on one line; JSON's strings are TOML's."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in facts.items()) + " }"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; 1 when a check has found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specification", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
    chosen = parser.parse_args(arguments)
    wanted = files(chosen.specification.read_text())
    present = {*(HERE / "examples").glob("*.py"), *HERE.glob("*.toml")}
    different = [path for path, text in wanted.items() if path not in present or path.read_text() != text]
    extra = present - set(wanted)
    for path in sorted(different):
        print(f"{'differs' if chosen.check else 'written'}: {path}")
        if not chosen.check:
            path.write_text(wanted[path])
    for path in sorted(extra):
        print(f"extra: {path}")
    return int(chosen.check and bool(different or extra))


if __name__ == "__main__":
    raise SystemExit(main())
