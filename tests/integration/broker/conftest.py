"""Fixtures: a bench with a broker on the Valkey of the session."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.broker.bench import Bench, BenchMaker
from tests.tools.audit import audit
from tests.tools.consistency import assert_never_repaired
from tests.tools.server import ValkeyServer


@pytest.fixture
async def make_bench(valkey: ValkeyServer) -> AsyncIterator[BenchMaker]:
    """Makes a bench without a broker; keyword arguments are settings. Its keys are audited in the end."""
    benches: list[Bench] = []
    # pytest's own directory is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as directory:

        async def make(**overrides: Any) -> Bench:
            bench = Bench(valkey.url, Path(directory), **overrides)
            benches.append(bench)
            return bench

        yield make
        for bench in benches:
            await bench.close()
            with valkey.client() as client:
                assert_never_repaired(client, bench.namespace, bench.settings.shards or 1)
                for shard in range(bench.settings.shards or 1):
                    audit(client, f"pl:{{{bench.namespace}:{shard}}}:")


@pytest.fixture
async def bench(make_bench: BenchMaker) -> Bench:
    """One broker with short times."""
    bench = await make_bench()
    await bench.broker()
    return bench
