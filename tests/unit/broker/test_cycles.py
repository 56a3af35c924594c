"""Who waits for himself: any graph against a plain search, and how far it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect_lite_broker.cycles import MOST_STEPS, find_cycles

pytestmark = pytest.mark.anyio

NAMES = "abcdef"


class Graph:
    """Blocked runs in a dict; counts the readings."""

    def __init__(self, runs: Mapping[str, tuple[int, list[str]]]) -> None:
        self.runs = runs
        self.read = 0
        self.listed = 0

    async def waits(
        self, run_ids: Sequence[str], *, times_only: bool = False
    ) -> dict[str, tuple[int, list[str]]]:
        self.read += len(run_ids)
        found = {run_id: self.runs[run_id] for run_id in run_ids if run_id in self.runs}
        if times_only:
            return {run_id: (at, []) for run_id, (at, _) in found.items()}
        self.listed += sum(len(ids) for _, ids in found.values())
        return found

    def reaches(self, start: str, goal: str) -> bool:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            run_id = ahead.pop()
            if run_id == goal:
                return True
            if run_id not in seen:
                seen.add(run_id)
                ahead += self.runs.get(run_id, (0, []))[1]
        return False


GRAPHS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.integers(1, 4), st.lists(st.sampled_from(NAMES), unique=True, max_size=4)),
).map(lambda runs: {name: (at, [one for one in ids if one != name]) for name, (at, ids) in runs.items()})


@given(GRAPHS)
async def test_every_cycle_is_broken_somewhere_and_nothing_else(
    runs: dict[str, tuple[int, list[str]]],
) -> None:
    graph = Graph(runs)
    found = await find_cycles(graph, list(runs))
    for run_id, parent in found:
        assert parent in runs[run_id][1]
        assert graph.reaches(parent, run_id)
    in_cycle = {
        run_id for run_id, (_, ids) in runs.items() if any(graph.reaches(parent, run_id) for parent in ids)
    }
    for run_id in in_cycle:  # somebody on its way round is found
        assert any(graph.reaches(run_id, other) and graph.reaches(other, run_id) for other, _ in found)


async def test_runs_submitted_in_order_are_not_followed() -> None:
    graph = Graph({f"r{i}": (i, [f"r{i - 1}"]) for i in range(1, 1000)})
    assert await find_cycles(graph, ["r999"]) == []
    assert graph.read == 2


async def test_what_the_parents_wait_for_is_not_read_for_nothing() -> None:
    """Where each run waits for all of the layer before, that would be a layer squared."""
    width = 50
    layers = [[f"{name}{i}" for i in range(width)] for name in "abc"]
    runs = {run: (1, []) for run in layers[0]}
    for at, (layer, before) in enumerate(zip(layers[1:], layers, strict=False), 2):
        runs |= dict.fromkeys(layer, (at, before))
    graph = Graph(runs)
    assert await find_cycles(graph, layers[2][:1]) == []
    assert graph.listed == width


async def test_the_search_has_an_end() -> None:
    graph = Graph({f"r{i}": (1, [f"r{i + 1}"]) for i in range(MOST_STEPS * 10)})
    assert await find_cycles(graph, ["r0"]) == []
    assert graph.read <= MOST_STEPS + 10
