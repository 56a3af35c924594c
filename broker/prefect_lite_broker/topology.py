"""Finds the right server among several: the owner of a slot in a cluster, the master behind sentinels."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, MovedError, RedisError

from .connect import Command, Dial, Dialer, OneServer, connected, conversation, leads_to, pack_command, send
from .redis_url import CLUSTER, SENTINEL, Node, RedisAddress

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""For one node or sentinel to answer, before the next one is asked."""

DIAL_SECONDS = 2.0
"""For a node of a cluster to be connected to, before all are asked again who has the slot: a frozen one takes
connections and says nothing."""

CLUSTER_SHARDS = 16
"""Parts of a new namespace in a cluster; they spread over the nodes, and move with the slots."""


def make_dialer(address: RedisAddress) -> Dialer:
    """The dialer for a kind of address."""
    if address.kind == CLUSTER:
        return ClusterDialer(address)
    if address.kind == SENTINEL:
        return SentinelDialer(address)
    return OneServer(address)


class ClusterDialer(Dialer):
    """Dials the owner of a slot, by what any node of the cluster says.

    All nodes ever heard of are remembered, so that a cluster may be replaced node by node under a running
    broker. What was learned is used until somebody finds it wrong.
    """

    clustered = True
    default_shards = CLUSTER_SHARDS

    def __init__(self, address: RedisAddress) -> None:
        super().__init__(address)
        self._nodes: dict[Node, None] = dict.fromkeys(address.nodes)  # a set in order
        self._ranges: list[tuple[int, int, Node]] = []
        self._stale = True
        self._ask_first: Node | None = None
        self._learning = asyncio.Lock()

    async def dial(self, slot: int) -> AbstractConnection:
        node = await self.node_of(slot)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                return await self._to(node)
        except (RedisError, OSError) as exc:
            self.doubt(exc)  # it may have been replaced
            raise

    async def elsewhere(self, slot: int, connection: AbstractConnection) -> bool:
        self._stale = True
        return not leads_to(connection, await self.node_of(slot))

    async def _to(self, node: Node) -> AbstractConnection:
        return await connected(self._address.connection(node))

    async def masters(self) -> list[Dial]:
        await self._learn()
        return [partial(self._to, node) for node in dict.fromkeys(owner for _, _, owner in self._ranges)]

    async def node_of(self, slot: int) -> Node:
        """The owner of a slot.

        Raises:
            RedisError, OSError: Nobody knows.
        """
        await self._learn()
        for first, last, node in self._ranges:
            if first <= slot <= last:
                return node
        self._stale = True
        raise ConnectionError(f"no node of the cluster serves slot {slot}")

    def doubt(self, error: BaseException) -> None:
        self._stale = True
        if isinstance(error, MovedError) and error.host:
            self._ask_first = (error.host, error.port)  # it knows what others may not have heard yet

    async def _learn(self) -> None:
        """Ask one node after the other where the slots are, until one knows."""
        async with self._learning:  # every shard's writer comes here when a node fails
            if not self._stale:
                return
            others = random.sample(list(self._nodes), len(self._nodes))
            first, self._ask_first = self._ask_first, None
            problem: BaseException | None = None
            for node in others if first is None else [first, *others]:
                try:
                    async with asyncio.timeout(ASK_SECONDS), conversation(partial(self._to, node)) as command:
                        self._ranges = await _slot_ranges(command, node)
                except (RedisError, OSError, TimeoutError) as exc:
                    logger.debug("node %s:%d does not tell about the cluster: %s", *node, exc)
                    problem = exc
                    continue
                self._nodes.update(dict.fromkeys(owner for _, _, owner in self._ranges))
                self._stale = False
                return
            text = (
                f"none of {len(others)} nodes tells about the cluster; the last said: {problem or 'nothing'}"
            )
            raise ConnectionError(text) from problem


async def _slot_ranges(command: Command, asked: Node) -> list[tuple[int, int, Node]]:
    reply: list[Any] = await command("CLUSTER", "SLOTS")
    ranges: list[tuple[int, int, Node]] = []
    for first, last, master, *_ in reply:
        host = master[0].decode() if master[0] else ""
        # A node that was not told its own address says none, or "?": it is where we found it.
        ranges.append((first, last, (host if host not in ("", "?") else asked[0], master[1])))
    if not ranges:
        raise ConnectionError("it knows no slots")
    return ranges


class SentinelDialer(Dialer):
    """Asks the sentinels for the master at every dial, and the master whether it is one."""

    async def dial(self, slot: int) -> AbstractConnection:
        problem: BaseException | None = None
        nodes = self._address.nodes
        for sentinel in random.sample(nodes, len(nodes)):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    master = await self._ask(sentinel)
                    return await self._master(master)
            except (RedisError, OSError, TimeoutError) as exc:
                logger.debug("no master by sentinel %s:%d: %s", *sentinel, exc)
                problem = exc
        text = (
            f"no sentinel leads to a master of {self._address.service!r}; the last: {problem or 'no answer'}"
        )
        raise ConnectionError(text) from problem

    async def masters(self) -> list[Dial]:
        return [self.on(0)]

    def doubt(self, error: BaseException) -> None:
        pass  # nothing is remembered

    async def elsewhere(self, slot: int, connection: AbstractConnection) -> bool:
        sentinel = random.choice(self._address.nodes)  # one that is behind the others is not asked every time
        async with asyncio.timeout(ASK_SECONDS):
            return not leads_to(connection, await self._ask(sentinel))

    async def _ask(self, sentinel: Node) -> Node:
        dial = partial(connected, self._address.sentinel_connection(sentinel))
        async with conversation(dial) as command:
            reply = await command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
        if not reply:
            raise ConnectionError(f"the sentinel does not know {self._address.service!r}")
        return reply[0].decode(), int(reply[1])

    async def _master(self, node: Node) -> AbstractConnection:
        connection = await connected(self._address.connection(node))
        try:
            await send(connection, pack_command(("ROLE",)))
            reply: Any = await connection.read_response()
            role: bytes = reply[0]
            if role != b"master":
                raise ConnectionError(f"{node[0]}:{node[1]} is a {role.decode()}, not the master")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection
