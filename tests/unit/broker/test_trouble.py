"""Trouble with Redis is told once when it begins and once when it is over."""

from __future__ import annotations

import pytest
from prefect_lite_broker.trouble import AWAY, FULL, REFUSES, Trouble


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return lines


def test_once_per_kind_and_not_per_retry_or_shard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "prefect_lite_broker.trouble")
    trouble = Trouble()
    for shard in (0, 1, 0, 1):
        trouble.begins(shard, AWAY, "refused")
    assert told(caplog) == [f"WARNING {AWAY}: refused"]
    trouble.begins(1, REFUSES, "read only")
    assert told(caplog) == [f"WARNING {REFUSES}: read only"]
    trouble.ends(0, AWAY)
    trouble.ends(1, AWAY)
    assert (trouble.of(0), trouble.of(1), told(caplog)) == ("", f"{REFUSES}: read only", [])
    trouble.ends(1, REFUSES, FULL)
    (line,) = told(caplog)
    assert line.startswith("INFO Redis works again, after ")
    trouble.ends(1, REFUSES)
    assert told(caplog) == [], "there was none"
    trouble.begins(0, AWAY, "again")
    assert told(caplog) == [f"WARNING {AWAY}: again"]
