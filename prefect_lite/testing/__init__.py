"""For test suites of programs that use tasks: a private broker and worker, eager runs, a clock to turn.

``test_harness`` starts the real thing, for one test or for all; ``eager`` runs everything in place, without a
broker; ``frozen_clock`` makes waiting free. The fixtures of ``pytest_plugin`` wrap them. Names are resolved
lazily, so that a suite that uses none pays for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_lite.testing.clocks import AdjustableClock, FakeClock, JumpingClock, frozen_clock
    from prefect_lite.testing.eager import eager
    from prefect_lite.testing.harness import Harness, test_harness

__all__ = [
    "AdjustableClock",
    "FakeClock",
    "Harness",
    "JumpingClock",
    "eager",
    "frozen_clock",
    "test_harness",
]

_MODULES = {"Harness": "harness", "test_harness": "harness", "eager": "eager"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'clocks')}"), name)
    globals()[name] = value
    return value
