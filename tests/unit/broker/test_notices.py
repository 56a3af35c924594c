"""The sentence about a key that nobody serves."""

from __future__ import annotations

import time
from typing import cast

import pytest
from prefect_lite_broker import notices as module
from prefect_lite_broker.dispatch import Dispatch
from prefect_lite_broker.notices import Notices, unserved_sentence
from prefect_lite_broker.store import Store


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


def test_thousands_of_long_keys_cost_little() -> None:
    served = {f"{'package.' * 50}module_{number}.task" for number in range(10_000)}
    start = time.process_time()
    unserved_sentence(f"{'package.' * 50}module_x.other", served)
    assert time.process_time() - start < 0.1
    assert "'tasks.add'" in unserved_sentence("tasks.ad", {*served, "tasks.add"})


class _Served:
    """A store and a dispatch that serve a few keys."""

    keys: tuple[str, ...] = ()

    async def served_keys(self) -> dict[str, int]:
        return {"tasks.add": 1}

    def serves(self, task_key: str) -> bool:
        return False


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    keys: list[str] = []

    def near(task_key: str, served: set[str]) -> list[str]:
        keys.append(task_key)
        return []

    monkeypatch.setattr(module, "_near", near)
    return keys


@pytest.mark.anyio
async def test_a_key_is_compared_once_and_a_flood_of_keys_hardly(compared: list[str]) -> None:
    served = _Served()
    notices = Notices(cast(Store, served), cast(Dispatch, served))
    first = await notices.sentence("tasks.ad")
    assert await notices.sentence("tasks.ad") == first
    assert compared == ["tasks.ad"]
    for number in range(200):
        assert await notices.sentence(f"tasks.t{number}")
    assert len(compared) == module.COMPARED_PER_READ
