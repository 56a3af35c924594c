"""The measuring loops for libraries of coroutines; `sync_loops` has the same ones for blocking libraries."""

from __future__ import annotations

import asyncio
import gc
import time

from checks import PATIENCE, PROBE_SECONDS, check_value, check_values, slices, text_of, too_late


class AsyncLoops:
    """One method per request of the driver; each returns the fields of its answer."""

    def __init__(self, client):
        self.client = client
        self.pending = None

    async def throughput(self, task, mode, count, timeout=PATIENCE):
        """From the first enqueue to the last result of ``count`` runs."""
        return await self._timed_batch(task, list(range(count)), mode, timeout)

    async def burst(self, task, arg, count, mode="loop1", timeout=PATIENCE):
        """The same for ``count`` runs with one argument."""
        return await self._timed_batch(task, [arg] * count, mode, timeout)

    async def _timed_batch(self, task, args, mode, timeout):
        gc.collect()
        started = time.perf_counter()
        if mode == "bulk":
            handles, expected = await self.client.send_bulk(task, args), args
        elif mode == "loop1":
            handles, expected = await self._send_each(task, args), args
        else:
            parts = slices(args, 8)
            sent = await asyncio.gather(*[self._send_each(task, part) for part in parts])
            handles, expected = [h for part in sent for h in part], [a for part in parts for a in part]
        enqueued = time.perf_counter()
        values = await self._values(handles, timeout)
        ended = time.perf_counter()
        check_values(values, expected)
        return {"count": len(args), "enqueue_seconds": enqueued - started, "total_seconds": ended - started}

    async def _values(self, handles, timeout):
        ends = time.monotonic() + timeout
        try:
            return await self.client.values(handles, timeout)
        except Exception as error:
            if time.monotonic() < ends - PROBE_SECONDS:
                raise
            raise too_late(await self._reached(handles), len(handles), timeout) from error

    async def _reached(self, handles):
        """How many have a result, if they end in the order of their enqueuing."""
        low, high = 0, len(handles)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if await self._has_result(handles[middle]) else (low, middle)
        return low

    async def _has_result(self, handle):
        try:
            await asyncio.wait_for(self.client.value(handle, PROBE_SECONDS), 5 * PROBE_SECONDS)
        except Exception:
            return False
        return True

    async def _send_each(self, task, args):
        send = self.client.send
        return [await send(task, arg) for arg in args]

    async def round_trips(self, task, count, timeout=PATIENCE):
        """One run after the other: seconds from the call to its value."""
        ends = time.monotonic() + timeout
        gc.collect()
        return {"seconds": [await self._round_trip(task, number, ends) for number in range(count)]}

    async def _round_trip(self, task, arg, ends):
        started = time.perf_counter()
        handle = await self.client.send(task, arg)
        value = await self.client.value(handle, max(0.001, ends - time.monotonic()))
        seconds = time.perf_counter() - started
        check_value(value, arg)
        return seconds

    async def payload(self, task, size, count, inflight, timeout=PATIENCE):
        """``count`` round trips of a text of ``size`` bytes, from ``inflight`` coroutines at once."""
        text, ends = text_of(size), time.monotonic() + timeout
        numbers = iter(range(count))

        async def sender():
            return [await self._round_trip(task, text, ends) for _ in numbers]

        gc.collect()
        started = time.perf_counter()
        sent = await asyncio.gather(*[sender() for _ in range(inflight)])
        total = time.perf_counter() - started
        return {"total_seconds": total, "seconds": [seconds for part in sent for seconds in part]}

    async def beside(self, task, payload_task, size, count, timeout=PATIENCE):
        """No-op round trips while another coroutine sends ``count`` large texts there and back."""
        text, ends = text_of(size), time.monotonic() + timeout

        async def send_texts():
            return [await self._round_trip(payload_task, text, ends) for _ in range(count)]

        gc.collect()
        payloads = asyncio.create_task(send_texts())
        seconds = []
        while not payloads.done():
            seconds.append(await self._round_trip(task, len(seconds), ends))
            await asyncio.sleep(0)  # a client that never has to wait would keep the other coroutine out
        return {"payload_seconds": await payloads, "round_trip_seconds": seconds}

    async def enqueue(self, task, timeout=PATIENCE):
        """Enqueue one run now; `collect` waits for it."""
        self.pending = await self.client.send(task, 1)
        return {}

    async def collect(self, timeout=PATIENCE):
        """Wait for that run; the answer is the time of its end on the machine's monotonic clock."""
        value = await self.client.value(self.pending, timeout)
        ended = time.monotonic()
        check_value(value, 1)
        return {"ended": ended}
