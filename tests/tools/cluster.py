"""A real Redis Cluster that a test owns: three masters, with replicas if asked for."""

from __future__ import annotations

import redis
from redis.crc import key_slot

from tests.tools.server import ValkeyServer, free_port
from tests.tools.waiting import wait_until

SLOTS = 16384

NODE_TIMEOUT_MS = 1000
"""A node that is silent for so long is taken for dead, and its replica is promoted."""


class Cluster:
    """Masters with equal shares of the slots, on 127.0.0.1.

    Args:
        masters: How many.
        replicas: Of each master.
        options: More command-line options of every node.

    Attributes:
        nodes: The masters, then their replicas: those of the first master first.
    """

    def __init__(self, masters: int = 3, replicas: int = 0, **options: str) -> None:
        self._masters = masters
        self._replicas = replicas
        self.nodes = [_node(options) for _ in range(masters * (1 + replicas))]

    @property
    def masters(self) -> list[ValkeyServer]:
        """Those that were masters at the start."""
        return self.nodes[: self._masters]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    def start(self) -> None:
        """Start all nodes, join them, and wait until every one serves."""
        for node in self.nodes:
            node.start()
        share = SLOTS // self._masters
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < self._masters:
                    last = SLOTS if number == self._masters - 1 else (number + 1) * share
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last - 1)
        with self.nodes[0].client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        self._attach_replicas()
        wait_until(self._complete, 30.0, "a complete cluster")

    def _attach_replicas(self) -> None:
        for number, replica in enumerate(self.nodes[self._masters :]):
            master = self.nodes[number // self._replicas]
            name = self.name_of(master)
            with replica.client() as client:
                wait_until(
                    lambda client=client, name=name: (
                        name.encode() in client.execute_command("CLUSTER", "NODES")
                    ),
                    20.0,
                    "its master's name",
                )
                client.execute_command("CLUSTER", "REPLICATE", name)

    def _complete(self) -> bool:
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                lines = client.execute_command("CLUSTER", "INFO").decode().split()
                if not {"cluster_state:ok", f"cluster_known_nodes:{len(self.nodes)}"} <= set(lines):
                    return False
                if number >= self._masters:
                    link = client.info("replication")
                    if link.get("master_link_status") != "up":  # type: ignore[union-attr]
                        return False
        return True

    def name_of(self, node: ValkeyServer) -> str:
        """The node's id in the cluster."""
        with node.client() as client:
            answer = client.execute_command("CLUSTER", "MYID")
        return answer.decode()

    def owner(self, slot: int) -> ValkeyServer:
        """The master that owns a slot just now, by what the living nodes say."""
        by_port = {node.port: node for node in self.nodes}
        for node in self.nodes:
            if not node.running:
                continue
            with redis.Redis(port=node.port) as client:
                for first, last, master, *_ in client.execute_command("CLUSTER", "SLOTS"):
                    if first <= slot <= last and by_port[master[1]].running:
                        return by_port[master[1]]
        raise AssertionError(f"nobody owns slot {slot}")

    def client(self) -> redis.RedisCluster:
        """A plain client, to look behind the store's back."""
        return redis.RedisCluster(host="127.0.0.1", port=self.masters[0].port)

    # -- moving a slot ------------------------------------------------------------------------------
    def begin_move(self, slot: int, target: ValkeyServer) -> ValkeyServer:
        """SETSLOT IMPORTING and MIGRATING; returns the source."""
        source = self.owner(slot)
        self._setslot(target, slot, "IMPORTING", self.name_of(source))
        self._setslot(source, slot, "MIGRATING", self.name_of(target))
        return source

    def move_keys(self, slot: int, source: ValkeyServer, target: ValkeyServer, most: int = 0) -> int:
        """MIGRATE the slot's keys, or so many of them; returns how many."""
        moved = 0
        with source.client() as client:
            while names := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, most or 100):
                client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
                moved += len(names)
                if most:
                    break
        return moved

    def end_move(self, slot: int, target: ValkeyServer) -> None:
        """SETSLOT NODE: the target first, as the cluster's documentation wants it."""
        name = self.name_of(target)
        self._setslot(target, slot, "NODE", name)
        for node in self.masters:
            if node is not target and node.running:
                self._setslot(node, slot, "NODE", name)

    def _setslot(self, node: ValkeyServer, slot: int, *words: str) -> None:
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, *words)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def slot_of(prefix: bytes) -> int:
    """The slot of a shard."""
    return key_slot(prefix)


def _node(options: dict[str, str]) -> ValkeyServer:
    bus_port = free_port()
    node = ValkeyServer(
        **{
            "cluster-enabled": "yes",
            "cluster-port": str(bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            **options,
        }
    )
    node.bus_port = bus_port
    return node
