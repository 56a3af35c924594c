"""Hashes of values, texts and files; the code is in ``prefect_lite.hashing``."""

from __future__ import annotations

from prefect_lite.hashing import file_hash, hash_objects, stable_hash

__all__ = ["file_hash", "hash_objects", "stable_hash"]
