"""SAQ behind the driver's client interface."""

import asyncio
import time

from app import queue
from client import AsyncClient
from saq.job import TERMINAL_STATUSES, Status

POLL_ONE = 0.001
POLL_MANY = 0.01
LOOK_AT = 100
SWEPT_SECONDS = 600


class SaqClient(AsyncClient):
    """`enqueue`, and the two halves of `Queue.map`: enqueue all at once, then poll `Queue.jobs`.

    `Job.refresh(until_complete)` waits by a subscription instead, but does not wait until that is made: it
    can miss the end of a quick run and then sits out its timeout. `Queue.map` looks at all missing jobs each
    time; here only at the oldest ``LOOK_AT``, which is less work for the library.
    """

    async def open(self):
        await queue.connect()
        # A worker sweeps when it starts, and takes a run that it is just fetching for a stuck one; not while
        # the last sweep's lock holds.
        await queue.sweep(lock=SWEPT_SECONDS)

    async def close(self):
        await queue.disconnect()

    async def send(self, task, arg):
        return (await queue.enqueue(task, value=arg)).key

    async def send_bulk(self, task, args):
        jobs = await asyncio.gather(*(queue.enqueue(task, value=arg) for arg in args))
        return [job.key for job in jobs]

    async def value(self, handle, timeout):
        return (await self._results([handle], timeout, POLL_ONE))[0]

    async def values(self, handles, timeout):
        return await self._results(handles, timeout, POLL_MANY)

    async def _results(self, keys, timeout, interval):
        ends = time.monotonic() + timeout
        results = []
        while True:
            wanted = keys[len(results) : len(results) + LOOK_AT]
            asked = time.monotonic()
            done = ended_first(await queue.jobs(wanted))
            results += [result_of(job) for job in done]
            if len(results) == len(keys):
                return results
            if len(done) < len(wanted):
                now = time.monotonic()
                if now > ends:
                    raise TimeoutError(f"{len(keys) - len(results)} results were not there in time")
                # A look fetches a job's arguments too: with 10 MB of them, looking every millisecond is all
                # that client and server would do.
                await asyncio.sleep(max(interval, now - asked))


def ended_first(jobs):
    """The jobs before the first that still runs."""
    ended = [job.status in TERMINAL_STATUSES for job in jobs]
    return jobs[: ended.index(False)] if False in ended else jobs


def result_of(job):
    if job.status != Status.COMPLETE:
        raise RuntimeError(f"{job.key} is {job.status}: {job.error}")
    return job.result


CLIENT = SaqClient
