"""Puts the parts of a worker together, on the connection thread."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

from prefect_lite.client.connection import BrokerConnection
from prefect_lite.keyring import Keyring
from prefect_lite.protocol.messages import Welcome
from prefect_lite.settings import Settings
from prefect_lite.task_runners import ProcessPoolTaskRunner
from prefect_lite.version import __version__
from prefect_lite_worker.connection import WorkerConnection, WorkerSession
from prefect_lite_worker.desk import Desk
from prefect_lite_worker.execution import Execution
from prefect_lite_worker.leases import Leases
from prefect_lite_worker.loops import Loops
from prefect_lite_worker.pools import Pool
from prefect_lite_worker.registry import Registry
from prefect_lite_worker.reporting import Reporter
from prefect_lite_worker.threads import ThreadPool


class Plan(NamedTuple):
    """What a worker is made from.

    Attributes:
        settings: Times and limits.
        keyring: Opens calls, seals results.
        registry: The served tasks.
        limit: Slots.
        name: Of the worker, for people.
        max_stray_threads: Stuck threads at which it stops.
        runner: Where runs are executed; None: threads and the loop.
    """

    settings: Settings
    keyring: Keyring
    registry: Registry
    limit: int
    name: str
    max_stray_threads: int
    runner: ProcessPoolTaskRunner | Executor | None = None


class Parts(NamedTuple):
    """What exists while the connection thread runs."""

    loop: asyncio.AbstractEventLoop
    leases: Leases
    execution: Execution
    pool: Pool
    loops: Loops
    work: WorkerConnection
    connection: BrokerConnection
    reporter: Reporter


def assemble(
    plan: Plan,
    user_loop: asyncio.AbstractEventLoop,
    *,
    owner: asyncio.Task[Any] | None,
    write: Callable[[Callable[[], str]], None] | None,
    on_up: Callable[[Welcome], None],
    on_down: Callable[[Exception | None], None],
) -> Parts:
    """Make the parts; nothing is connected yet.

    Args:
        plan: What to make.
        user_loop: Where coroutines run.
        owner: The caller of ``aserve``, to whom the loop belongs; None: it is ours.
        write: Takes what makes a line for the terminal; None: records go through ``logging``.
        on_up: Called when a broker has welcomed us.
        on_down: Called when there is none (any more).
    """
    settings, desk = plan.settings, Desk()
    leases = Leases(plan.limit)
    execution = Execution(
        leases, desk, plan.keyring, settings.namespace, settings.max_payload_bytes, settings
    )
    pool = _pool(plan, leases, desk, execution)
    loops = Loops(user_loop, execution.on_loop, owner=owner)
    reporter = Reporter(write, logging.getLogger("prefect_lite").getEffectiveLevel(), plan.name)
    session = WorkerSession(
        "worker",
        settings.namespace,
        version=__version__,
        info={"host": socket.gethostname(), "pid": os.getpid(), "name": plan.name},
        max_payload_bytes=settings.max_payload_bytes,
    )
    session.serve(plan.registry.keys)
    session.set_free(plan.limit)
    work = WorkerConnection(session, plan, leases, desk, execution, pool, loops, reporter)
    connection = BrokerConnection(
        session, settings, "worker", on_messages=work.on_messages, on_up=on_up, on_down=on_down
    )
    work.schedule_flush, work.at_once = connection.schedule_flush, connection.at_once
    return Parts(asyncio.get_running_loop(), leases, execution, pool, loops, work, connection, reporter)


def _pool(plan: Plan, leases: Leases, desk: Desk, execution: Execution) -> Pool:
    """What executes functions, and elsewhere than in threads coroutine functions too."""
    if plan.runner is None:
        return ThreadPool(execution.in_thread, plan.limit)
    # Only those who use them pay for them.
    from prefect_lite_worker.handover import Handover
    from prefect_lite_worker.processes import ProcessPool, Surroundings

    handover = Handover(execution, desk, plan.keyring, plan.settings.namespace)
    tasks, loop = plan.registry.tasks, asyncio.get_running_loop()
    around = Surroundings(loop, leases, desk, execution, handover, plan.settings, tasks)
    if isinstance(plan.runner, ProcessPoolTaskRunner):
        return ProcessPool(around, plan.runner, plan.limit)
    from prefect_lite_worker.executors import ExecutorPool

    return ExecutorPool(around, plan.runner, plan.limit)
