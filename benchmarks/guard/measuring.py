"""The measuring process: counts, and prints the figures as JSON.

It is a process of its own (``child.py`` starts it) so that no coverage tool, debugger or earlier test has a
hand in what is counted.

    python -m benchmarks.guard.measuring [group ...]
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from benchmarks.guard import broker, client, envelopes, protocol, whole, worker
from benchmarks.guard.counting import Counter
from benchmarks.guard.deployment import Deployment
from benchmarks.guard.figures import Figures
from benchmarks.guard.stillness import Stillness

ALONE = {module.GROUP: module.measure for module in (protocol, envelopes)}
DEPLOYED = {module.GROUP: module.measure for module in (client, broker, worker, whole)}
GROUPS = (*ALONE, *DEPLOYED)


def measure(groups: Sequence[str]) -> Figures:
    """The figures of some groups."""
    counter, stillness = Counter(), Stillness()
    gc.disable()  # finalizers would run in the middle of something else
    figures: Figures = {}
    for group, count in ALONE.items():
        if group in groups:
            figures |= count(counter)
    deployed = [count for group, count in DEPLOYED.items() if group in groups]
    if deployed:
        with Deployment(counter, stillness) as deployment:
            for measure_group in deployed:
                figures |= measure_group(deployment)
    return figures


def main(groups: Sequence[str]) -> NoReturn:
    """Print the figures of these groups, or of all, and end the process."""
    # What the product prints must not get between the figures.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    code = 1
    try:
        figures = measure(groups or GROUPS)
        json.dump({name: tuple(figure) for name, figure in figures.items()}, out)
        out.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # a thread that is stuck must not keep the process


if __name__ == "__main__":
    main(sys.argv[1:])
