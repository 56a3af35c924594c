"""What a broker would record of assets, for eager mode: in memory, for as long as that lasts."""

from __future__ import annotations

import threading
import time
from typing import Any

from prefect_lite.protocol import recorded_assets
from prefect_lite.protocol.recorded_assets import MADE, RunOfAssets, SaidOfAsset


class _Asset:
    def __init__(self, key: str) -> None:
        self.key = key
        self.properties = b""
        self.total = self.made_ms = self.failed_ms = self.read_ms = 0
        self.runs: dict[str, list[Any]] = {}  # by run id, oldest first

    @property
    def known(self) -> list[Any]:
        times = [self.made_ms, self.failed_ms, self.read_ms]
        newest = [*self.runs.values()][-1:]
        last = [newest[0][0], newest[0][2], newest[0][3]] if newest else ["", "", b""]
        return [self.key, self.properties, self.total, *times, *last]


class EagerAssets:
    """Answers the questions ``asset.*`` as a broker does."""

    def __init__(self) -> None:
        self._assets: dict[str, _Asset] = {}
        self._tracked: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def answer(self, what: str, arg: Any) -> tuple[bool, Any]:
        """The answer to a QUERY.

        Returns:
            True and the value, or False and [code, sentence].
        """
        try:
            with self._lock:
                match what:
                    case "asset.record":
                        return True, self._record(recorded_assets.recorded(arg))
                    case "asset.of_runs":
                        return True, self._of_runs(recorded_assets.run_ids(arg))
                    case "asset.list":
                        return True, self._list(*recorded_assets.assets_wanted(arg))
                    case "asset.read":
                        return True, self._read(*recorded_assets.runs_wanted(arg))
                    case _:
                        return False, ["unknown_query", f"Nobody answers {what[:64]!r} in eager mode."]
        except ValueError as exc:
            return False, ["bad_argument", f"This can't be asked: {exc}."]

    def _record(self, said: RunOfAssets) -> bool:
        now = time.time_ns() // 1_000_000
        if said.tracked:
            self._tracked[said.run_id] = said.tracked
        for one in said.made if said.outcome else ():
            asset = self._said(one)
            run = [said.run_id, now, said.outcome, said.head, said.sources, one.metadata]
            before = asset.runs.get(said.run_id)
            if before is not None and before[2:] == run[2:]:
                continue
            asset.total += before is None
            asset.runs.pop(said.run_id, None)
            asset.runs[said.run_id] = run
            if said.outcome == MADE:
                asset.made_ms = now
            else:
                asset.failed_ms = now
        for one in said.read:
            self._said(one).read_ms = now
        return True

    def _said(self, one: SaidOfAsset) -> _Asset:
        asset = self._assets.setdefault(one.key, _Asset(one.key))
        asset.properties = one.properties or asset.properties
        return asset

    def _of_runs(self, run_ids: list[str]) -> dict[str, Any]:
        found = {run_id: self._tracked[run_id] for run_id in run_ids if run_id in self._tracked}
        return {"assets": found, "info": {}, "left": []}

    def _list(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        keys = sorted(key for key in self._assets if key.startswith(prefix) and key > after)
        page = keys[:limit]
        return {
            "assets": [self._assets[key].known for key in page],
            "next": page[-1] if len(keys) > len(page) else None,
        }

    def _read(self, key: str, limit: int, offset: int) -> dict[str, Any] | None:
        asset = self._assets.get(key)
        if asset is None:
            return None
        runs = [*reversed(asset.runs.values())]
        following = offset + limit
        return {
            "asset": asset.known,
            "runs": runs[offset:following],
            "next": following if following < len(runs) else None,
        }
