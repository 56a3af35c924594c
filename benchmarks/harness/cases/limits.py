"""Case G: the limits that nothing built from these parts can pass, measured in the same run.

A websocket between two processes, one connection to Valkey, and the bare path (``benchmarks/bare_path.py``),
which joins them as prefect_lite does but without states, retries, leases, signatures or futures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from statistics import median

import uvloop
from bare_path import measure as measure_bare_path
from redis.connection import UnixDomainSocketConnection
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.asyncio.connection import broadcast

from harness.samples import Emit

from .growth.recorder import Recorder
from .growth.site import PROGRAMS, START_SECONDS, Site

VARIANT = ""
MESSAGE_BYTES = 250
"""About a SUBMIT with a small body."""
FRAME_MESSAGES = 100
IN_FLIGHT = 16
TRIPS = 1_000
FRAMES = 5_000
PIPELINE = 1_000
SETS = 100_000
VALUE = b"x" * 200
BARE_RUNS = 20_000
STEP_SECONDS = 90


def measure_limits(round: int, emit: Emit, scale: float = 1.0) -> None:
    """Measure all of them, about ten seconds at scale 1.

    Args:
        round: Number of the round, for the samples.
        emit: Takes each sample; a limit that could not be measured gives a "skipped" one.
        scale: Of the counts; 0.01 ends within seconds.
    """
    recorder = Recorder(round, emit, peer="limits", case="G", scale=scale)
    for measure in (_websocket, _redis, _bare_path):
        with recorder.attempt(VARIANT):
            measure(recorder, scale)


def _scaled(count: int, scale: float) -> int:
    return max(50, int(count * scale))


# -- a websocket ----------------------------------------------------------------------------------


def _websocket(recorder: Recorder, scale: float) -> None:
    trips, frames = _scaled(TRIPS, scale), _scaled(FRAMES, scale)
    with Site() as site:
        path = site.folder / "echo.sock"
        server = site.start("echo", sys.executable, str(PROGRAMS / "echo_server.py"), str(path))
        server.wait_for(path.exists, START_SECONDS, "socket")
        with recorder.measuring() as take:
            p50, rate = uvloop.run(asyncio.wait_for(_echo(str(path), trips, frames), STEP_SECONDS))
            take(VARIANT, "echo_p50_ms", p50 * 1e3, "ms", trips, f"{MESSAGE_BYTES} bytes there and back")
            note = f"{FRAME_MESSAGES} messages of {MESSAGE_BYTES} bytes each, echoed, {IN_FLIGHT} in flight"
            take(VARIANT, "batched_frames_per_second", rate, "1/s", frames, note)


async def _echo(path: str, trips: int, frames: int) -> tuple[float, float]:
    """p50 of a round trip in seconds, and frames per second."""
    async with unix_connect(
        path, "ws://localhost/", compression=None, max_size=None, ping_interval=None
    ) as ws:
        times: list[float] = []
        for _ in range(trips):
            started = time.perf_counter()
            await _send_all(ws, bytes(MESSAGE_BYTES), 1, 1)
            times.append(time.perf_counter() - started)
        frame = bytes(MESSAGE_BYTES * FRAME_MESSAGES)
        started = time.perf_counter()
        await _send_all(ws, frame, frames, IN_FLIGHT)
        return median(times), frames / (time.perf_counter() - started)


async def _send_all(ws: ClientConnection, frame: bytes, count: int, in_flight: int) -> None:
    sent = min(count, in_flight)
    for _ in range(sent):
        broadcast([ws], frame)
    for _ in range(count):
        if len(await ws.recv(decode=False)) != len(frame):
            raise ValueError("an echo of another length")
        if sent < count:
            broadcast([ws], frame)
            sent += 1


# -- Valkey ---------------------------------------------------------------------------------------


def _redis(recorder: Recorder, scale: float) -> None:
    trips, sets = _scaled(TRIPS, scale), max(PIPELINE, _scaled(SETS, scale))
    with Site() as site:
        connection = UnixDomainSocketConnection(path=str(site.valkey_socket), socket_timeout=STEP_SECONDS)
        try:
            with recorder.measuring() as take:
                what = "SET of 200 bytes, append-only file with everysec"
                p50 = _single(connection, trips)
                take(VARIANT, "redis_round_trip_p50_ms", p50 * 1e3, "ms", trips, what)
                rate = _pipelined(connection, sets)
                note = f"{what}, {PIPELINE} in a pipeline"
                take(VARIANT, "redis_pipelined_per_second", rate, "1/s", sets, note)
        finally:
            connection.disconnect()


def _single(connection: UnixDomainSocketConnection, count: int) -> float:
    """p50 of one SET and its answer, in seconds."""
    times: list[float] = []
    for number in range(count):
        started = time.perf_counter()
        connection.send_command("SET", f"r:{number:032x}", VALUE)
        _read_answers(connection, 1)
        times.append(time.perf_counter() - started)
    return median(times)


def _pipelined(connection: UnixDomainSocketConnection, count: int) -> float:
    """SETs per second; they are packed before, so that it is Valkey's time and not redis-py's."""
    pipelines = [
        connection.pack_commands(
            [("SET", f"r:{number:032x}", VALUE) for number in range(first, first + PIPELINE)]
        )
        for first in range(0, count, PIPELINE)
    ]
    started = time.perf_counter()
    for pipeline in pipelines:
        connection.send_packed_command(pipeline, check_health=False)
        _read_answers(connection, PIPELINE)
    return len(pipelines) * PIPELINE / (time.perf_counter() - started)


def _read_answers(connection: UnixDomainSocketConnection, count: int) -> None:
    for _ in range(count):
        if connection.read_response() != b"OK":
            raise ValueError("a SET was refused")


# -- both -----------------------------------------------------------------------------------------


def _bare_path(recorder: Recorder, scale: float) -> None:
    runs, trips = _scaled(BARE_RUNS, scale), _scaled(TRIPS, scale)
    with recorder.measuring() as take:
        figures = measure_bare_path(runs, trips)
        take(VARIANT, "bare_runs_per_second", figures["runs_per_second"], "1/s", runs)
        take(VARIANT, "bare_round_trip_p50_ms", figures["round_trip_p50_ms"], "ms", trips)
