"""What the demo's worker serves: word counts of the texts beside this file, and three tasks that go wrong."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

from prefect_lite import task

TEXTS = Path(__file__).parent / "texts"
NAMES = tuple(sorted(path.stem for path in TEXTS.glob("*.txt")))


def count(name: str, part: int = 0, parts: int = 1) -> dict[str, int]:
    """Count the words of one text; with ``parts``, every ``parts``-th word from number ``part`` on."""
    words = re.findall(r"[a-z']+", (TEXTS / f"{name}.txt").read_text("utf-8").lower())
    return dict(Counter(words[part::parts]))


@task
def count_text(name: str) -> dict[str, int]:
    """Count the words of a whole text."""
    return count(name)


@task
def count_part(name: str, part: int, parts: int) -> dict[str, int]:
    """Count one part of a text; all parts together hold each word once."""
    return count(name, part, parts)


@task(retries=3, retry_delay_seconds=0.2, retry_jitter_factor=0.5)
def count_with_failures(name: str, failures: int, markers: str) -> dict[str, int]:
    """Fail on the first attempts, which leave a file each in the directory ``markers``, then count."""
    for number in range(failures):
        try:
            (Path(markers) / f"{name}.{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        raise OSError(f"The disk with {name!r} is not ready yet.")
    return count(name)


@task(timeout_seconds=0.5)
async def never_ready() -> None:
    """Wait for longer than its timeout."""
    await asyncio.sleep(60)


@task
async def wait_for_ever() -> None:
    """Wait until it is cancelled."""
    await asyncio.sleep(3600)
