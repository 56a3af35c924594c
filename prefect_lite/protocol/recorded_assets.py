"""Limits of what a broker records of assets, and the checks of questions about them: the broker makes them,
and what stands in for one in tests.

Each check takes the ``arg`` of a QUERY and returns its parts.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from prefect_lite.protocol.checks import check_run_id

MAX_ASSET_KEY: Final = 512
"""Characters of the key of an asset."""
MAX_HEAD_BYTES: Final = 16_384
"""What is said of a run in a list: its task, flow and tool."""
MAX_SOURCES_BYTES: Final = 65_536
"""The assets that it has read."""
MAX_METADATA_BYTES: Final = 32_768
"""What a run says of one asset."""
MAX_PROPERTIES_BYTES: Final = 16_384
MAX_ASSETS: Final = 256
"""Assets in one question, and runs."""
MAX_TRACKED: Final = 512
"""Assets that are handed on to whoever takes a run's result."""
MAX_PAGE: Final = 1_000
LAST_OFFSET: Final = 1 << 40

MADE: Final = "made"
FAILED: Final = "failed"


class SaidOfAsset(NamedTuple):
    """What a run says of one asset.

    Attributes:
        key: Of the asset.
        properties: JSON; they replace those that are known. Empty: nothing is said of them.
        metadata: JSON, of this run; empty of an asset that was read.
    """

    key: str
    properties: bytes = b""
    metadata: bytes = b""


class RunOfAssets(NamedTuple):
    """``asset.record``: what a run has made or read.

    Attributes:
        run_id: Of the run.
        outcome: ``MADE``, ``FAILED``, or "" when nothing was made (a cached result, a task that only reads).
        head: JSON, what is said of the run.
        sources: JSON, the keys of what it has read.
        made: What it has made, or failed to.
        read: What it has read.
        tracked: Keys that runs which take its result count as read.
    """

    run_id: str
    outcome: str
    head: bytes
    sources: bytes
    made: list[SaidOfAsset]
    read: list[SaidOfAsset]
    tracked: list[str]

    @property
    def size(self) -> int:
        """How much it is, about, in bytes."""
        said = sum(sum(map(len, one)) for one in (*self.made, *self.read))
        return len(self.head) + len(self.sources) + said + sum(map(len, self.tracked))


class AssetsWanted(NamedTuple):
    """``asset.list``: which page of all assets, in the order of their keys."""

    prefix: str
    after: str
    limit: int


class RunsWanted(NamedTuple):
    """``asset.read``: which page of an asset's runs, newest first."""

    key: str
    limit: int
    offset: int


def recorded(arg: Any) -> RunOfAssets:
    """``asset.record``: a list of the parts of ``RunOfAssets``.

    Raises:
        ValueError: It is none; the text is a sentence without its end.
    """
    parts = _parts(arg, 7, "[run_id, outcome, head, sources, made, read, tracked]")
    run_id, outcome, head, sources, made, read, tracked = parts
    check_id(run_id)
    if outcome not in (MADE, FAILED, ""):
        raise ValueError(f"the outcome of a run must be {MADE}, {FAILED} or empty")
    return RunOfAssets(
        run_id,
        outcome,
        _blob(head, MAX_HEAD_BYTES, "what is said of a run"),
        _blob(sources, MAX_SOURCES_BYTES, "the list of what a run has read"),
        [_said(one) for one in _list(made, MAX_ASSETS, "assets")],
        [_said(one) for one in _list(read, MAX_ASSETS, "assets")],
        _tracked(tracked),
    )


def run_ids(arg: Any) -> list[str]:
    """``asset.of_runs``: run ids; raises like ``recorded``."""
    return [check_id(run_id) for run_id in _list(arg, MAX_ASSETS, "runs")]


def assets_wanted(arg: Any) -> AssetsWanted:
    """``asset.list``: [prefix, after, limit]; raises like ``recorded``."""
    prefix, after, limit = _parts(arg, 3, "[prefix, after, limit]")
    return AssetsWanted(_text(prefix), _text(after), _count(limit, 1, MAX_PAGE, "the limit of a page"))


def runs_wanted(arg: Any) -> RunsWanted:
    """``asset.read``: [key, limit, offset]; raises like ``recorded``."""
    key, limit, offset = _parts(arg, 3, "[key, limit, offset]")
    most = _count(limit, 1, MAX_PAGE, "the limit of a page")
    return RunsWanted(asset_key(key), most, _count(offset, 0, LAST_OFFSET, "the offset of a page"))


def asset_key(value: Any) -> str:
    """The key of an asset; raises like ``recorded``."""
    if not _text(value):
        raise ValueError("an asset must have a key")
    return value


def check_id(value: Any) -> str:
    """A run id; raises like ``recorded``."""
    if not isinstance(value, str):
        raise ValueError("a run id must be a text")
    check_run_id(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_ASSET_KEY or not value.isprintable():
        raise ValueError(f"a key must be a text of at most {MAX_ASSET_KEY} printable characters")
    return value


def _tracked(value: Any) -> list[str]:
    found = [asset_key(key) for key in _list(value, MAX_TRACKED, "tracked assets")]
    if sum(len(key.encode()) for key in found) > MAX_SOURCES_BYTES:
        raise ValueError(f"the keys of tracked assets must be at most {MAX_SOURCES_BYTES:,} bytes")
    return found


def _said(value: Any) -> SaidOfAsset:
    key, properties, metadata = _parts(value, 3, "assets as [key, properties, metadata]")
    return SaidOfAsset(
        asset_key(key),
        _blob(properties, MAX_PROPERTIES_BYTES, "the properties of an asset"),
        _blob(metadata, MAX_METADATA_BYTES, "the metadata of an asset"),
    )


def _blob(value: Any, most: int, what: str) -> bytes:
    if not isinstance(value, bytes) or len(value) > most:
        raise ValueError(f"{what} must be at most {most:,} bytes")
    return value


def _list(value: Any, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(cast("list[Any]", value)) > most:
        raise ValueError(f"this question takes a list of at most {most:,} {what}")
    return cast("list[Any]", value)


def _parts(value: Any, count: int, shape: str) -> list[Any]:
    parts = cast("list[Any]", value) if isinstance(value, list) else []
    if len(parts) != count:
        raise ValueError(f"this question takes {shape}")
    return parts


def _count(value: Any, least: int, most: int, what: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} must be a whole number from {least} to {most:,}")
    return value
