"""The sentence about a key that nobody serves."""

from __future__ import annotations

import pytest
from prefect_lite_broker.notices import unserved_sentence


@pytest.mark.parametrize(
    ("key", "served", "part"),
    [
        ("tasks.ad", {"tasks.add"}, "Served is 'tasks.add'."),
        ("app.tasks.resize", {"jobs.resize", "jobs.add"}, "Served is 'jobs.resize'."),
        ("tasks.add", set[str](), "No worker is connected."),
        ("tasks.add", {"completely.different_thing"}, "the run waits for one."),
    ],
)
def test_near_keys_are_named(key: str, served: set[str], part: str) -> None:
    sentence = unserved_sentence(key, served)
    assert sentence.startswith(f"No worker serves {key!r}")
    assert sentence.endswith(part)
