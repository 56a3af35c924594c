"""Executes programs in the interpreter it is started with: ``inside.py FOLDER FILE NAME...``, by outcomes.py.

Each program leaves one line of JSON in FILE. One that takes too long ends the process, as a thread can't be
stopped; a line says so before, and who started the process goes on with the others in a new one.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

from observing import told

PATIENCE = 90.0  # seconds; under Prefect the first program also waits for its temporary server
HUNG = 3


def main(folder: Path, file: Path, names: list[str]) -> None:
    """Execute the programs in this order."""
    sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    with file.open("a", buffering=1) as lines, open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere  # what programs print is not compared
        for name in names:
            _execute(lines, name)


def _execute(lines: TextIO, name: str) -> None:
    def program() -> Any:
        group, _, function = name.partition(".")
        module = importlib.import_module(f"{group}_programs")
        logging.disable(logging.CRITICAL)  # after the import, which sets logging up
        return getattr(module, function)()

    def give_up() -> None:
        print(json.dumps({"program": name, "saw": f"hangs for {PATIENCE:g} s"}), file=lines, flush=True)
        os._exit(HUNG)

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    began = time.perf_counter()
    saw = told(program)
    timer.cancel()
    seconds = round(time.perf_counter() - began, 2)
    print(json.dumps({"program": name, "saw": saw, "seconds": seconds}), file=lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
