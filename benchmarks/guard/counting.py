"""Counts the Python instructions executed and the C functions called, in every thread.

Only the code between ``start`` and ``stop`` counts, and only in frames entered since. Left out are the guard
itself and asyncio's own event loop: in production uvloop does in C what that one does in Python.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from benchmarks.guard import packing

_HERE = str(Path(__file__).parent)
_ASYNCIO = str(Path(asyncio.__file__).parent)
_LOOP_FILES = ("base_events", "events", "proactor_events", "selector_events", "transports", "unix_events")
_LEFT_OUT = {selectors.__file__, *(f"{_ASYNCIO}/{name}.py" for name in _LOOP_FILES)}

Tracer = Callable[[FrameType, str, Any], Any]


class Counts(NamedTuple):
    """What was executed.

    Attributes:
        instructions: Bytecode instructions.
        c_calls: Calls of functions written in C, made from Python.
        packs: Calls of msgpack, which are not among these.
    """

    instructions: int
    c_calls: int
    packs: int


class _Thread:
    """What one thread did."""

    __slots__ = ("c_calls", "instructions", "local", "packs")

    def __init__(self) -> None:
        self.instructions = 0
        self.c_calls = 0
        self.packs = 0
        self.local: Tracer | None = None


class Counter:
    """One per process, made before the threads that it shall count."""

    def __init__(self) -> None:
        self._active = False
        self._threads: dict[int, _Thread] = {}
        self._counted: dict[CodeType, bool] = {}
        # A debugger or a coverage tool that traces this process would count too.
        sys.settrace(None)
        sys.setprofile(None)
        packing.tell(self._packs)
        threading.settrace(self._trace)
        threading.setprofile(self._profile)

    def start(self) -> None:
        """Count from now on: in this thread, and in those started since this object was made."""
        self._threads.clear()
        self._active = True
        sys.setprofile(self._profile)
        sys.settrace(self._trace)

    def stop(self) -> dict[int, Counts]:
        """Stop counting; returns what each thread did, by its ident."""
        sys.settrace(None)
        sys.setprofile(None)
        self._active = False
        return {
            ident: Counts(each.instructions, each.c_calls, each.packs)
            for ident, each in self._threads.items()
        }

    def leave(self) -> None:
        """What this thread does from now on counts no more; the others go on."""
        sys.settrace(None)
        sys.setprofile(None)

    def of(self, work: Callable[[], object]) -> Counts:
        """What ``work`` does in this thread."""
        self.start()
        try:
            work()
        finally:
            counts = self.stop()
        return counts.get(threading.get_ident(), Counts(0, 0, 0))

    def _counts(self, code: CodeType) -> bool:
        counted = self._counted.get(code)
        if counted is None:
            file = code.co_filename
            counted = not (file in _LEFT_OUT or file.startswith((_HERE, "<frozen importlib")))
            self._counted[code] = counted
        return counted

    def _thread(self) -> _Thread:
        ident = threading.get_ident()
        thread = self._threads.get(ident)
        if thread is None:
            thread = self._threads[ident] = _Thread()
        return thread

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Tracer | None:
        if not self._active or not self._counts(frame.f_code):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        thread = self._thread()
        if thread.local is None:
            thread.local = self._local(thread)
        return thread.local

    def _local(self, thread: _Thread) -> Tracer:
        def local(_frame: FrameType, event: str, _arg: Any) -> Tracer:
            if event == "opcode" and self._active:
                thread.instructions += 1
            return local

        return local

    def _packs(self) -> None:
        if self._active:
            self._thread().packs += 1

    def _profile(self, frame: FrameType, event: str, _arg: Any) -> None:
        if event == "c_call" and self._active and self._counts(frame.f_code):
            self._thread().c_calls += 1


def total(counts: Iterable[Counts]) -> Counts:
    """Of several threads together."""
    each = [*counts]
    return Counts(*(sum(kind) for kind in zip(*each, strict=True))) if each else Counts(0, 0, 0)
