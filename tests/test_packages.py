"""The base install stays small: what `pip install prefect-lite` brings, counted from the metadata."""

from __future__ import annotations

from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MOST = 26


def closure(name: str, extras: frozenset[str] = frozenset(), seen: set[str] | None = None) -> set[str]:
    seen = set() if seen is None else seen
    seen.add(canonicalize_name(name))
    for text in requires(name) or ():
        needed = Requirement(text)
        wanted = [
            needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in (extras or {""})
        ]
        if any(wanted) and (canonicalize_name(needed.name) not in seen or needed.extras):
            closure(needed.name, frozenset(needed.extras), seen)
    return seen


def test_the_base_install_is_small() -> None:
    packages = closure("prefect-lite")
    assert {"prefect-lite", "websockets", "redis", "hiredis", "msgpack", "cloudpickle"} <= packages
    assert len(packages) <= MOST, sorted(packages)
