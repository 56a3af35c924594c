"""Idle clients: opens websockets to a broker, says HELLO on each, and keeps them alive until stdin closes.

Usage: python crowd.py SOCKET COUNT TOKEN. Prints ``open COUNT`` when all are welcomed.

They say RENEW as real clients do, from a frame made once: the other machines of real clients would not
compete with the broker for these cores.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress

import uvloop
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from prefect_lite.protocol.codec import decode_frame, encode_frame
from prefect_lite.protocol.messages import PROTOCOL_MINOR, PROTOCOL_NAME, Hello, Renew, Welcome

NAMESPACE = "default"
AT_A_TIME = 50
RENEW_SECONDS = 5.0
SLICES = 50
HELLO_SECONDS = 30.0


async def open_one(path: str, token: str) -> ClientConnection:
    """A welcomed connection."""
    ws = await unix_connect(
        path,
        "ws://localhost/",
        subprotocols=[Subprotocol(PROTOCOL_NAME)],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        ping_interval=None,
        open_timeout=HELLO_SECONDS,
    )
    await ws.send(encode_frame([Hello(PROTOCOL_MINOR, "client", NAMESPACE)]))
    messages = decode_frame(await asyncio.wait_for(ws.recv(decode=False), HELLO_SECONDS))
    if not any(isinstance(message, Welcome) for message in messages):
        raise ConnectionError(f"no WELCOME but {messages}")
    return ws


async def drain(ws: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        async for _ in ws:
            continue


async def keep_alive(crowd: list[ClientConnection]) -> None:
    """RENEW on each every ``RENEW_SECONDS``, spread evenly."""
    beat = encode_frame([Renew(0, [])])
    while True:
        for part in range(SLICES):
            broadcast(crowd[part::SLICES], beat)
            await asyncio.sleep(RENEW_SECONDS / SLICES)


async def main(path: str, count: int, token: str) -> None:
    crowd: list[ClientConnection] = []
    beating = asyncio.create_task(keep_alive(crowd))
    draining: list[asyncio.Task[None]] = []
    for first in range(0, count, AT_A_TIME):
        dials = (open_one(path, token) for _ in range(min(AT_A_TIME, count - first)))
        opened = await asyncio.gather(*dials)
        draining.extend(asyncio.create_task(drain(ws)) for ws in opened)
        crowd.extend(opened)
    print(f"open {len(crowd)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    beating.cancel()
    lost = sum(task.done() for task in draining)
    print(f"lost {lost}", flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
