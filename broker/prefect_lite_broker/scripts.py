"""Loads the Lua scripts; ``--@include name`` is replaced by ``scripts/lib/name.lua``.

The first line of each tells the server what it may do: ``allow-oom`` for all that make room or keep what is
under way going when memory is full (all but new runs and log lines), ``no-writes`` for questions. Any such
line also has the server refuse keys of more than one hash slot.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("scripts")
_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


class Script(NamedTuple):
    """A script by name; ``sha`` is what EVALSHA takes."""

    name: str
    source: str
    sha: str


def _load(path: Path) -> Script:
    def included(match: re.Match[str]) -> str:
        return (_FOLDER / "lib" / f"{match[1]}.lua").read_text()

    source = _COMMENT.sub("", _INCLUDE.sub(included, path.read_text()))
    return Script(path.stem, source, hashlib.sha1(source.encode()).hexdigest())


SCRIPTS: dict[str, Script] = {path.stem: _load(path) for path in sorted(_FOLDER.glob("*.lua"))}
"""Every operation's script by its name."""
