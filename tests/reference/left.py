"""What of the specification is not there yet, with the part it belongs to: the one list of it.

Everything named here has a test that must fail (``xfail`` is strict), so what gets done has to leave the
list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

CACHING, RESULTS, TRANSACTIONS, ASSETS = "caching", "results", "transactions", "assets"

EXAMPLES = {6: CACHING}
SIGNATURES = {1: CACHING, 33: ASSETS}
OPTION_LISTS = {9: ASSETS}
OPTION_EFFECTS = {
    "cache_policy": CACHING,
    "cache_key_fn": CACHING,
    "cache_expiration": CACHING,
    "refresh_cache": CACHING,
    "persist_result": RESULTS,
    "result_storage": RESULTS,
    "result_storage_key": RESULTS,
    "result_serializer": RESULTS,
    "on_commit": TRANSACTIONS,
    "on_rollback": TRANSACTIONS,
    "asset_deps": ASSETS,
}


def option(name: str) -> pytest.MarkDecorator:
    """For the test of what an option does that has no effect yet."""
    return pytest.mark.xfail(reason=f"left: {OPTION_EFFECTS[name]}", strict=True)


def parameters(all_of_them: Iterable[Any], left: dict[Any, str]) -> list[Any]:
    """The same for ``pytest.mark.parametrize``; what is left is expected to fail."""
    return [
        pytest.param(each, marks=pytest.mark.xfail(reason=f"left: {left[each]}", strict=True))
        if each in left
        else each
        for each in all_of_them
    ]
