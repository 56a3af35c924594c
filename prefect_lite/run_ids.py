"""Run ids: 32 lower-case hex digits of a random UUID (version 4).

The low 12 bits choose the shard, so that any broker finds a run from its id alone.
"""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

_VERSION_AND_VARIANT = (0x4 << 76) | (0x2 << 62)
_RANDOM_BITS = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)
_HEX = frozenset("0123456789abcdef")
SHARD_DIGITS = 3

# uuid.uuid4() asks the kernel every time (2 us); ids need to be unique, not secret.
_random = random.Random(os.urandom(32))


def _reseed() -> None:
    _random.seed(os.urandom(32))


# A child would otherwise repeat the ids of its parent.
os.register_at_fork(after_in_child=_reseed)


def new_run_id() -> str:
    """A new run id."""
    return f"{_random.getrandbits(128) & _RANDOM_BITS | _VERSION_AND_VARIANT:032x}"


def run_id_for(task_key: str, idempotency_key: str) -> str:
    """A new run id in the shard of the idempotency key, since key and run must share a shard."""
    digest = hashlib.blake2b(f"{task_key}\0{idempotency_key}".encode(), digest_size=8).hexdigest()
    return new_run_id()[:-SHARD_DIGITS] + digest[:SHARD_DIGITS]


def parse_run_id(run_id: UUID | str) -> str:
    """A run id from what people write: a UUID, with or without dashes.

    Raises:
        ValueError: It is no UUID.
    """
    text = str(run_id).replace("-", "").lower()
    if len(text) != 32 or not _HEX.issuperset(text):
        raise ValueError(f"{run_id!r} is not a run id: expected a UUID.")
    return text
