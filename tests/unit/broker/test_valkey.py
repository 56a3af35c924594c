"""The embedded Valkey: watched without polling, restarted at once, and no reason for the broker to end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_broker import process
from prefect_lite_broker import valkey as module
from prefect_lite_broker.valkey import EmbeddedValkey

from prefect_lite.embedded.home import Home, prepare_home
from prefect_lite.settings import load_settings
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

Start = Callable[..., Any]


@pytest.fixture
async def make_valkey() -> AsyncIterator[Callable[[Path], EmbeddedValkey]]:
    """Makes an EmbeddedValkey of one home that keeps its socket in the given folder."""
    directory = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    home: Home = prepare_home(load_settings(home=directory))
    made: list[EmbeddedValkey] = []

    def make(runtime: Path) -> EmbeddedValkey:
        runtime.mkdir(exist_ok=True)
        made.append(EmbeddedValkey(home, runtime, "no"))
        return made[-1]

    make.directory = directory  # type: ignore[attr-defined]
    yield make
    for each in reversed(made):
        await each.stop()
    shutil.rmtree(directory)


@asynccontextmanager
async def watched(valkey: EmbeddedValkey) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(valkey.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("adopted", [False, True])
async def test_a_living_server_is_not_asked_about_and_a_dead_one_restarted(
    make_valkey: Any, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    valkey = make_valkey(make_valkey.directory / "r")
    await valkey.start()
    if adopted:
        valkey = make_valkey(make_valkey.directory / "r")
        await valkey.start()
    looks: list[int] = []
    look = valkey.run_once
    monkeypatch.setattr(valkey, "run_once", lambda: (looks.append(1), look())[1])
    async with watched(valkey):
        await asyncio.sleep(3 * module.WATCH_SECONDS)  # nothing happens, which can't be waited for
        assert looks == []
        pid = valkey.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: valkey.pid != pid, what="another server")


async def test_without_descriptors_the_watch_goes_on(
    make_valkey: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    valkey = make_valkey(make_valkey.directory / "r")
    await valkey.start()

    def none_left(*_args: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(valkey._lock, "try_acquire", none_left)
        patched.setattr(os, "pidfd_open", none_left, raising=False)
        async with watched(valkey) as task:
            await until(lambda: "Too many open files" in caplog.text, what="the warning")
            assert not task.done()
            pid = valkey.pid
            os.kill(pid, signal.SIGKILL)
            patched.undo()
            await until(lambda: valkey.pid != pid, what="another server")


async def test_a_replaced_server_listens_in_the_present_folder(
    make_valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNREACHABLE_SECONDS", 0.2)
    gone, present = make_valkey.directory / "r1", make_valkey.directory / "r2"
    await make_valkey(gone).start()
    shutil.rmtree(gone)
    valkey = make_valkey(present)
    await valkey.start()
    assert valkey.redis_url == f"unix://{present / 'valkey.sock'}"
    assert (present / "valkey.sock").exists()


def test_a_broker_may_have_as_many_descriptors_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        process.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, process.MAX_DESCRIPTORS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a process's environment can't be read here")
async def test_the_allocator_is_told_what_to_keep_unless_the_user_has_said_so(
    make_valkey: Callable[[Path], EmbeddedValkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory: Path = make_valkey.directory  # type: ignore[attr-defined]
    (name, value), own = *module.ALLOCATOR.items(), "glibc.malloc.check=0"
    for given, told in ((None, value), (own, own)):
        if given:
            monkeypatch.setenv(name, given)
        else:
            monkeypatch.delenv(name, raising=False)
        valkey = make_valkey(directory / "run")
        await valkey.start()
        environment = await asyncio.to_thread(Path(f"/proc/{valkey.pid}/environ").read_bytes)
        environment = environment.replace(b"\0", b":")
        assert f"{name}={told}:".encode() in environment, "glibc itself cuts it up at the colons"
        await valkey.stop()
