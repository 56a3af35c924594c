"""A child process of a flow: takes one call after the other, says what happens to its run, answers.

What it says over its socket are pickles, each with its length before it. Both ends are one program.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from prefect_lite import child_program, main_module
from prefect_lite.pickling import dumps, loads
from prefect_lite.states import StateType

if TYPE_CHECKING:
    from prefect_lite.runs import TaskRun

MOVED, END = "moved", "end"
"""Its run has entered a state; its run has ended."""

LEAVE_SECONDS = 1.0
"""What is left for a run when the other side has gone."""

_length = struct.Struct(">Q")


def write(sock: socket.socket, message: Any) -> None:
    """Send a message; blocks."""
    data = dumps(message)
    sock.sendall(_length.pack(len(data)) + data)


def read(sock: socket.socket) -> Any:
    """Wait for a message.

    Raises:
        EOFError: The other side has gone.
    """
    (size,) = _length.unpack(_exactly(sock, _length.size))
    return loads(_exactly(sock, size))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data, got = bytearray(size), 0
    view = memoryview(data)
    while got < size:
        try:
            count = sock.recv_into(view[got:])
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError
        got += count
    return bytes(data)


def main(descriptor: str) -> None:
    """Work until the other side has gone."""
    with socket.socket(fileno=int(descriptor)) as sock, suppress(EOFError, ConnectionError):
        sock.set_inheritable(False)
        threading.Thread(target=_die_with_the_parent, args=(sock,), daemon=True).start()
        _prepare(read(sock))
        while True:
            data = read(sock)
            answer = _answer(sock, data)
            write(sock, (END, answer, resident_bytes()))
    # Threads that the user's code has left must not keep it alive.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with_the_parent(sock: socket.socket) -> None:
    """End when the other side has gone, whatever runs here, with what it has started in its own session."""
    gone = select.poll()
    gone.register(sock, 0)  # hanging up is always told
    gone.poll()
    time.sleep(LEAVE_SECONDS)  # what has nothing to do ends by itself
    os.killpg(0, signal.SIGKILL)


def _prepare(program: dict[str, Any]) -> None:
    child_program.imported_only = True
    try:
        spawn.prepare(program)
        main_module.register_main()
    finally:
        child_program.imported_only = False


def _answer(sock: socket.socket, data: bytes) -> bytes:
    from prefect_lite.packed_calls import run_packed

    def told(record: TaskRun) -> None:
        note = type(record).moved

        def moved(type: StateType, name: str, message: str | None = None) -> None:
            note(record, type, name, message)
            with lock:
                write(sock, (MOVED, type, name, message, record.run_count))

        record.moved = moved

    lock = threading.Lock()
    return run_packed(data, told)


def resident_bytes() -> int:
    """Memory that this process has, or once had where that is all the system says."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
