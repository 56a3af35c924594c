"""Sends every frame back: the other end of the bare websocket in the limits case.

Usage: python echo_server.py SOCKET. Runs until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import uvloop
from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed


async def echo(ws: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            broadcast([ws], await ws.recv(decode=False))


async def main(path: str) -> None:
    async with unix_serve(echo, path, compression=None, max_size=None, ping_interval=None):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
