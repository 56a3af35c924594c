"""``python -m tests.tools.proxy LISTEN TARGET ...``: the proxy as a command."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tests.tools.proxy.flow import Address
from tests.tools.proxy.link import Link
from tests.tools.proxy.proxy import Proxy

EPILOG = """\
signals:
  SIGUSR1  end all connections (--end says how)
  SIGUSR2  stop passing anything, and go on at the next one (--stall says what happens to the bytes)
  SIGHUP   print the counters
  SIGINT, SIGTERM  end

examples:
  a link across the world:     python -m tests.tools.proxy 127.0.0.1:7000 127.0.0.1:4200 --latency-ms 150 --jitter-ms 20
  a bad mobile connection:     python -m tests.tools.proxy 127.0.0.1:7000 127.0.0.1:4200 --rate 50000 --latency-ms 300
  every byte by itself:        python -m tests.tools.proxy 127.0.0.1:7000 127.0.0.1:4200 --slice 1
  Redis that loses its peers:  python -m tests.tools.proxy /tmp/p.sock /run/valkey.sock --end reset; kill -USR1 PID
  a peer that has vanished:    ... --stall black-hole; kill -USR2 PID
  only the second caller:      ... --rate 10000 --only 2
"""  # noqa: E501 - commands to copy


def address(text: str) -> Address:
    """``host:port``, else the path of a unix socket."""
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else text


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.tools.proxy",
        description="Pass connections on to TARGET, with the trouble of a bad network. An address is "
        "host:port (port 0: any free one, which is printed) or the path of a unix socket.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("listen", type=address, metavar="LISTEN", help="where callers connect")
    made.add_argument("target", type=address, metavar="TARGET", help="where their connections go")
    trouble = made.add_argument_group("trouble")
    trouble.add_argument("--latency-ms", type=float, default=0.0, help="pass each piece on so much later")
    trouble.add_argument("--jitter-ms", type=float, default=0.0, help="give or take so much; order is kept")
    trouble.add_argument("--rate", type=float, default=0.0, help="bytes per second in each direction")
    trouble.add_argument("--slice", type=int, default=0, help="write at most so many bytes at once")
    trouble.add_argument("--slice-pause-ms", type=float, default=0.0, help="time between two such pieces")
    trouble.add_argument(
        "--way",
        choices=("up", "down", "both"),
        default="both",
        help="up: from callers to TARGET, down: the way back (default: both)",
    )
    trouble.add_argument(
        "--only",
        default="",
        metavar="N,N...",
        help="for these connections only, counted from 1 in the order of arrival (signals concern all)",
    )
    made.add_argument("--end", choices=("cut", "reset"), default="cut", help="SIGUSR1: with FIN or RST")
    made.add_argument(
        "--stall",
        choices=("hold", "black-hole"),
        default="hold",
        help="SIGUSR2: hold bytes back, or lose them and the ends of connections",
    )
    made.add_argument(
        "--buffer-bytes", type=int, default=65536, help="receive buffer of each socket (default: %(default)s)"
    )
    return made


def trouble_of(args: argparse.Namespace, proxy: Proxy, links: list[Link] | None = None) -> None:
    """Make the trouble that the options name."""
    way: Any = args.way
    if args.latency_ms or args.jitter_ms:
        proxy.delay(way, args.latency_ms / 1000, args.jitter_ms / 1000, links)
    if args.rate:
        proxy.limit(way, args.rate, links)
    if args.slice:
        proxy.slice(way, args.slice, args.slice_pause_ms / 1000, links)


async def serve(args: argparse.Namespace) -> None:
    """Run until a signal says otherwise."""
    only = {int(number) for number in args.only.split(",") if number}

    def on_link(link: Link) -> None:
        if link.number in only:
            trouble_of(args, proxy, [link])

    proxy = Proxy(args.target, buffer_bytes=args.buffer_bytes, on_link=on_link if only else None)
    if not only:
        trouble_of(args, proxy)
    await proxy.start(args.listen)
    stalled = False

    def toggle() -> None:
        nonlocal stalled
        stalled = not stalled
        if not stalled:
            proxy.release()
        elif args.stall == "hold":
            proxy.hold()
        else:
            proxy.black_hole()

    def report() -> None:
        print({"links": len(proxy.links), **asdict(proxy.counters)}, flush=True)

    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, proxy.reset if args.end == "reset" else proxy.cut)
    loop.add_signal_handler(signal.SIGUSR2, toggle)
    loop.add_signal_handler(signal.SIGHUP, report)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    where = proxy.address if isinstance(proxy.address, str) else "{}:{}".format(*proxy.address)
    print(f"listening on {where}", flush=True)
    await end.wait()
    await proxy.close()
    report()


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    asyncio.run(serve(parser().parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
