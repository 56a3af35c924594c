"""The programs: their names, what each of them is made of, and the same for ``prefect_lite``."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"


def all_programs() -> dict[str, str]:
    """``group.name`` of every program, in order, with a digest of its code and of what its module shares.

    Every public function of ``programs/GROUP_programs.py`` is one. Comments and line breaks don't count.
    """
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*_programs.py")):
        body = ast.parse(path.read_text()).body
        programs = [node for node in body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        shared = [ast.unparse(node) for node in body[1:] if node not in programs]  # after the docstring
        for node in programs:
            code = "\n".join([*shared, ast.unparse(node)])
            found[f"{path.stem.removesuffix('_programs')}.{node.name}"] = _digest(code)
    return found


def chosen(names: Iterable[str], programs: dict[str, str]) -> list[str]:
    """The programs that ``names`` (programs or groups) stand for; all of them without names.

    Raises:
        LookupError: a name is neither a program nor a group.
    """
    groups = {program.partition(".")[0] for program in programs}
    for name in names:
        if name not in programs and name not in groups:
            raise LookupError(
                f"No program and no group is called {name!r}; groups: {', '.join(sorted(groups))}."
            )
    wanted = set(names)
    return [
        program
        for program in programs
        if not wanted or program in wanted or program.partition(".")[0] in wanted
    ]


def translate(folder: Path) -> None:
    """Write the programs into ``folder`` with ``prefect`` replaced by ``prefect_lite``."""
    folder.mkdir()
    for path in FOLDER.glob("*.py"):
        (folder / path.name).write_text(re.sub(r"\bprefect\b", "prefect_lite", path.read_text()))


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]
