"""Timeouts of tasks."""

import asyncio
import threading
import time

from observing import told
from prefect import flow, task


def _spin(seconds=3.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def direct():
    made = task(timeout_seconds=0.1)(_spin)
    return [told(made), made(return_state=True)]


def sleeping():
    made = task(timeout_seconds=0.1)(lambda: time.sleep(1))
    began = time.perf_counter()
    saw = told(made)
    return [saw, time.perf_counter() - began < 0.8]


def asynchronous():
    @task(timeout_seconds=0.1)
    async def slow():
        await asyncio.sleep(5)

    return [told(lambda: asyncio.run(slow())), asyncio.run(slow(return_state=True))]


def submitted():
    made = task(timeout_seconds=0.1)(_spin)

    @flow
    def outer():
        future = made.submit()
        return [told(future.result), future.state]

    return outer()


def submitted_async():
    @task(timeout_seconds=0.1)
    async def slow():
        await asyncio.sleep(5)

    @flow
    def outer():
        return [told(slow.submit().result)]

    return outer()


def fast_enough():
    return [task(timeout_seconds=5)(lambda: 1)(), asyncio.run(_afast())]


async def _afast():
    @task(timeout_seconds=5)
    async def fast():
        return 2

    return await fast()


def own_errors():
    @task
    def raises():
        raise TimeoutError("mine")

    return [told(raises), raises(return_state=True)]


def own_errors_under_a_timeout():
    @task(timeout_seconds=5)
    def raises():
        raise TimeoutError("mine")

    @task(timeout_seconds=5)
    async def araises():
        raise TimeoutError("mine")

    return [told(raises), raises(return_state=True), asyncio.run(araises(return_state=True))]


def kind_of_error():
    made = task(timeout_seconds=0.05)(_spin)
    try:
        made()
    except TimeoutError as error:
        return [isinstance(error, TimeoutError), type(error).__name__]


def zero():
    return told(lambda: task(timeout_seconds=0)(lambda: time.sleep(0.05) or 1)())


def finally_blocks():
    events = []

    @task(timeout_seconds=0.1)
    def slow():
        try:
            _spin()
        finally:
            events.append("finally")

    told(slow)
    return events


def nested():
    @task(timeout_seconds=0.1)
    def inner():
        _spin()

    @task(timeout_seconds=5)
    def outer():
        return told(inner)

    return outer()


def outer_around_inner():
    @task
    def inner():
        _spin()

    @task(timeout_seconds=0.1)
    def outer():
        inner()

    return [told(outer), outer(return_state=True)]


def hooks():
    events = []
    made = task(timeout_seconds=0.1, on_failure=[lambda t, r, s: events.append([s.name, s.type.value])])(
        _spin
    )
    made(return_state=True)
    return events


def per_attempt():
    seen = []

    @task(timeout_seconds=0.3, retries=2)
    def made():
        seen.append(1)
        time.sleep(0.15)
        if len(seen) < 3:
            raise ValueError
        return "done"

    return made()


def in_a_thread():
    made = task(timeout_seconds=0.1)(_spin)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(told(made)))
    thread.start()
    thread.join(10)
    return seen


def swallowed():
    @task(timeout_seconds=0.1)
    async def slow():
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "swallowed"

    return told(lambda: asyncio.run(slow()))


def cleared():
    made = task(timeout_seconds=0.05)(lambda: time.sleep(0.1) or 1)
    return told(lambda: made.with_options(timeout_seconds=5)())


def mapped():
    made = task(timeout_seconds=0.2)(lambda x: time.sleep(0.01) if x else _spin())

    @flow
    def outer():
        return made.map([0, 1], return_state=True)

    return told(lambda: list(outer(return_state=True).result(raise_on_failure=False)))
