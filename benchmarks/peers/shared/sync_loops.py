"""The measuring loops for blocking libraries; `async_loops` holds the same ones for coroutines."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from checks import PATIENCE, PROBE_SECONDS, check_value, check_values, slices, text_of, too_late


class SyncLoops:
    """One method per request of the driver; each returns the fields of its answer."""

    def __init__(self, client):
        self.client = client
        self.pending = None

    def throughput(self, task, mode, count, timeout=PATIENCE):
        """From the first enqueue to the last result of ``count`` runs."""
        return self._timed_batch(task, list(range(count)), mode, timeout)

    def burst(self, task, arg, count, mode="loop1", timeout=PATIENCE):
        """The same for ``count`` runs with one argument."""
        return self._timed_batch(task, [arg] * count, mode, timeout)

    def _timed_batch(self, task, args, mode, timeout):
        senders = 8 if mode == "loop8" else 1
        with ThreadPoolExecutor(senders) as pool:
            list(pool.map(time.sleep, [0.01] * senders))  # its threads start here, not in the measured time
            gc.collect()
            started = time.perf_counter()
            if mode == "bulk":
                handles, expected = self.client.send_bulk(task, args), args
            elif senders == 1:
                handles, expected = self._send_each(task, args), args
            else:
                parts = slices(args, senders)
                sent = list(pool.map(lambda part: self._send_each(task, part), parts))
                handles, expected = [h for part in sent for h in part], [a for part in parts for a in part]
            enqueued = time.perf_counter()
            values = self._values(handles, timeout)
            ended = time.perf_counter()
        check_values(values, expected)
        return {"count": len(args), "enqueue_seconds": enqueued - started, "total_seconds": ended - started}

    def _values(self, handles, timeout):
        ends = time.monotonic() + timeout
        try:
            return self.client.values(handles, timeout)
        except Exception as error:
            if time.monotonic() < ends - PROBE_SECONDS:
                raise
            raise too_late(self._reached(handles), len(handles), timeout) from error

    def _reached(self, handles):
        """How many have a result, if they end in the order of their enqueuing."""
        low, high = 0, len(handles)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._has_result(handles[middle]) else (low, middle)
        return low

    def _has_result(self, handle):
        try:
            self.client.value(handle, PROBE_SECONDS)
        except Exception:
            return False
        return True

    def _send_each(self, task, args):
        send = self.client.send
        return [send(task, arg) for arg in args]

    def round_trips(self, task, count, timeout=PATIENCE):
        """One run after the other: seconds from the call to its value."""
        ends = time.monotonic() + timeout
        gc.collect()
        return {"seconds": [self._round_trip(task, number, ends) for number in range(count)]}

    def _round_trip(self, task, arg, ends):
        started = time.perf_counter()
        value = self.client.value(self.client.send(task, arg), max(0.001, ends - time.monotonic()))
        seconds = time.perf_counter() - started
        check_value(value, arg)
        return seconds

    def payload(self, task, size, count, inflight, timeout=PATIENCE):
        """``count`` round trips of a text of ``size`` bytes, from ``inflight`` threads at once."""
        text, ends = text_of(size), time.monotonic() + timeout
        gc.collect()
        with ThreadPoolExecutor(inflight) as pool:
            started = time.perf_counter()
            seconds = list(pool.map(lambda _: self._round_trip(task, text, ends), range(count)))
            total = time.perf_counter() - started
        return {"total_seconds": total, "seconds": seconds}

    def beside(self, task, payload_task, size, count, timeout=PATIENCE):
        """No-op round trips while another thread sends ``count`` large texts there and back."""
        text, ends = text_of(size), time.monotonic() + timeout
        over = threading.Event()
        gc.collect()
        with ThreadPoolExecutor(1) as pool:
            payloads = pool.submit(lambda: [self._round_trip(payload_task, text, ends) for _ in range(count)])
            payloads.add_done_callback(lambda _: over.set())
            seconds = []
            while not over.is_set():
                seconds.append(self._round_trip(task, len(seconds), ends))
        return {"payload_seconds": payloads.result(), "round_trip_seconds": seconds}

    def enqueue(self, task, timeout=PATIENCE):
        """Enqueue one run now; `collect` waits for it."""
        self.pending = self.client.send(task, 1)
        return {}

    def collect(self, timeout=PATIENCE):
        """Wait for that run; the answer is the time of its end on the machine's monotonic clock."""
        value = self.client.value(self.pending, timeout)
        ended = time.monotonic()
        check_value(value, 1)
        return {"ended": ended}
