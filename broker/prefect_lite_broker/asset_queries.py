"""QUERY ``asset.*``: what runs have made of assets, recorded and asked for.

======================  =======================  ==========================================================
``what``                ``arg``                  value of the ANSWER
======================  =======================  ==========================================================
``asset.record``        parts of ``RunOfAssets`` True; may be repeated
``asset.of_runs``       [run id, ...]            {"assets": {run id: [asset key, ...]}, "info": {run id: what
                                                 SUBMIT said}, "left": [run id, ...]}: of runs that have noted
                                                 assets these, of others what they belong to, if they are
                                                 known; ``left`` did not fit and is to be asked for again
``asset.list``          [prefix, after, limit]   {"assets": [parts of ``KnownAsset``, ...], "next": key}
``asset.read``          [key, limit, offset]     {"asset": parts of ``KnownAsset``, "runs": [parts of
                                                 ``RecordedRun``, ...], "next": n}, newest first; None when
                                                 nothing is known of it
======================  =======================  ==========================================================

The parts are those of ``protocol.recorded_assets`` and ``store_assets``; what is JSON is opaque here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import ResponseError

from prefect_lite.protocol import recorded_assets
from prefect_lite_broker.questions import Question, Refusal
from prefect_lite_broker.refusals import Cure, cure, sentence
from prefect_lite_broker.store_assets import AssetCalls

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub
    from prefect_lite_broker.shard_calls import ShardCalls

T = TypeVar("T")

RUNS_BYTES = 300_000
"""Of an ANSWER about runs; each takes at most 64 KiB of it."""
RUNS_AT_ONCE = 16
"""So many are read before it is known whether there is room for more."""


def _checked(check: Callable[[Any], T], arg: Any) -> T:
    try:
        return check(arg)
    except ValueError as exc:
        raise Refusal("bad_argument", f"This can't be asked: {exc}.") from None


def _assets(hub: Hub) -> AssetCalls:
    return AssetCalls(cast("ShardCalls", hub.store))


async def _record(hub: Hub, arg: Any) -> Any:
    said = _checked(recorded_assets.recorded, arg)
    size = said.size
    if not hub.bodies.take(size):
        raise Refusal("busy", "Too much that is to be kept waits for Redis in this broker already.")
    try:
        await _assets(hub).record(said)
    except ResponseError as exc:
        if cure(exc) is Cure.ROOM:
            raise Refusal("full", f"Redis has no memory to record this ({sentence(exc)}).") from exc
        raise
    finally:
        hub.bodies.give_back(size)
    return True


async def _of_runs(hub: Hub, arg: Any) -> Any:
    run_ids = _checked(recorded_assets.run_ids, arg)
    page = RunsPage()
    for start in range(0, len(run_ids), RUNS_AT_ONCE):
        if page.full:
            page.left += run_ids[start:]
            break
        await _fill(page, hub, run_ids[start : start + RUNS_AT_ONCE])
    return {"assets": page.assets, "info": page.info, "left": page.left}


async def _fill(page: RunsPage, hub: Hub, run_ids: list[str]) -> None:
    noted = await _assets(hub).of_runs(run_ids)
    for run_id, found in noted.items():
        page.add(page.assets, run_id, found, sum(len(key.encode()) for key in found))
    others = [run_id for run_id in run_ids if run_id not in noted]
    for record in await hub.store.read_runs(others) if others else []:
        if record.info:
            page.add(page.info, record.state.run_id, record.info, len(record.info))


class RunsPage:
    """What one ANSWER has room for; whoever asks has to ask again for what is ``left``."""

    def __init__(self) -> None:
        self.assets: dict[str, list[str]] = {}
        self.info: dict[str, bytes] = {}
        self.left: list[str] = []
        self._room = RUNS_BYTES

    @property
    def full(self) -> bool:
        """Whether something did not fit."""
        return bool(self.left)

    def add(self, where: dict[str, T], run_id: str, found: T, size: int) -> None:
        self._room -= size
        if self._room >= 0:
            where[run_id] = found
        else:
            self.left.append(run_id)


async def _list(hub: Hub, arg: Any) -> Any:
    page = await _assets(hub).page(_checked(recorded_assets.assets_wanted, arg))
    return {"assets": [list(asset) for asset in page.assets], "next": page.following}


async def _read(hub: Hub, arg: Any) -> Any:
    page = await _assets(hub).runs_of(_checked(recorded_assets.runs_wanted, arg))
    if page is None:
        return None
    return {"asset": list(page.asset), "runs": [list(run) for run in page.runs], "next": page.following}


ASSET_QUESTIONS: dict[str, Question] = {
    "asset.record": Question(_record),
    "asset.of_runs": Question(_of_runs),
    "asset.list": Question(_list),
    "asset.read": Question(_read),
}
