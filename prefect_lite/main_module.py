"""The program's own file and the name others import it by.

``python tasks.py`` runs the file as ``__main__``; whoever calls its tasks imports it as ``tasks``. A class
defined there must be one class, or its instances fail ``isinstance`` on the other side. So the first task
defined in ``__main__`` registers the running module under its import name too, and pickles refer to its
classes and functions by that name. Programs without tasks of their own, ``-c`` and notebooks are left alone:
what they define is pickled by value.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

MAIN_NAMES = frozenset({"__main__", "__mp_main__"})  # the latter in children of multiprocessing

_registered = ""


def register_main() -> str:
    """Make the main module importable by its import name; return that name, "" when it has none."""
    global _registered
    if not _registered:
        module = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
        name = import_name(module) if module is not None else ""
        if module is not None and name:
            # A package that imports its own -m module got there first; its copy keeps the name.
            sys.modules.setdefault(name, module)
            _registered = name
    return _registered


def registered_name() -> str:
    """The main module's import name, "" while it has defined no task or when it has none."""
    return _registered


def import_name(module: ModuleType) -> str:
    """The name ``module``, run as a program, would be imported by; "" without a file."""
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name not in MAIN_NAMES:
        return spec.name  # python -m package.module
    path = getattr(module, "__file__", None)
    if not path:
        return ""
    folder, filename = os.path.split(os.path.abspath(path))
    parts = [os.path.splitext(filename)[0]]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    name = ".".join(parts)
    return "" if name in MAIN_NAMES else name


def import_name_of(obj: Any) -> str:
    """The module name that other processes know ``obj`` (a function or class) by."""
    module: str = getattr(obj, "__module__", None) or ""
    if module in MAIN_NAMES:
        return register_main() or "__main__"
    return module


def main_reference(obj: Any) -> tuple[str, str] | None:
    """(module, qualified name) of a class or function that the registered main module defines, else None."""
    if not _registered or getattr(obj, "__module__", None) not in MAIN_NAMES:
        return None
    qualname: str = getattr(obj, "__qualname__", "")
    found: Any = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return (_registered, qualname) if found is obj else None


def load_name(module: str, qualname: str) -> Any:
    """What ``qualname`` stands for in ``module``, imported if need be. Pickles refer to this function."""
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found
