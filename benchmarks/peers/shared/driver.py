"""The client process of every peer: answers the harness's requests with what its measuring loops took.

Usage: python driver.py NAME CONFIG, where CONFIG is JSON: ``fd`` (a connected socket), ``dir`` (the peer's
folder). One JSON object per line each way. A request is ``{"do": <method of the loops>, ...arguments}``; a
failure is answered with ``{"error": "..."}``.
Runs in the peer's venv: uses the standard library and the peer only.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import resource
import socket
import sys
import time
import traceback

REQUESTS = ("throughput", "burst", "round_trips", "payload", "beside", "enqueue", "collect")


def readiness(import_seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"import_seconds": import_seconds, "rss": peak * (1 if sys.platform == "darwin" else 1024)}


def failure(error):
    traceback.print_exception(error)
    sys.stderr.flush()
    return {"error": f"{type(error).__name__}: {error}"[:500]}


def encoded(answer):
    return json.dumps(answer).encode() + b"\n"


def method_of(loops, request):
    name = request.pop("do")
    if name not in REQUESTS:
        raise ValueError(f"no request {name!r}")
    return getattr(loops, name)


def serve_sync(connection, client, import_seconds):
    from sync_loops import SyncLoops

    client.open()
    loops = SyncLoops(client)
    connection.sendall(encoded(readiness(import_seconds)))
    for line in connection.makefile("rb"):
        request = json.loads(line)
        if request["do"] == "stop":
            break
        try:
            answer = method_of(loops, request)(**request)
        except Exception as error:
            answer = failure(error)
        connection.sendall(encoded(answer))
    client.close()


async def serve_async(connection, client, import_seconds):
    from async_loops import AsyncLoops

    reader, writer = await asyncio.open_connection(sock=connection)
    await client.open()
    loops = AsyncLoops(client)
    writer.write(encoded(readiness(import_seconds)))
    while line := await reader.readline():
        request = json.loads(line)
        if request["do"] == "stop":
            break
        try:
            answer = await method_of(loops, request)(**request)
        except Exception as error:
            answer = failure(error)
        writer.write(encoded(answer))
        await writer.drain()
    await client.close()
    writer.close()


def loop_factory():
    """uvloop's where the peer has it, as its documentation would have it."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def main():
    config = json.loads(sys.argv[2])
    sys.path[0] = config["dir"]
    connection = socket.socket(fileno=config["fd"])
    try:
        started = time.perf_counter()
        import adapter

        import_seconds = time.perf_counter() - started
        client = adapter.CLIENT()
        if asyncio.iscoroutinefunction(client.send):
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(serve_async(connection, client, import_seconds))
        else:
            serve_sync(connection, client, import_seconds)
    except Exception as error:
        connection.sendall(encoded(failure(error)))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
