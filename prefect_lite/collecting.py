"""Who takes the ends of runs, for somebody who waits for them or is likely to."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prefect_lite.client.latch import Latch
from prefect_lite.futures import PrefectDistributedFuture

if TYPE_CHECKING:
    from prefect_lite.client.runtime import Runtime
    from prefect_lite.protocol.messages import RunState

Future = PrefectDistributedFuture[Any]


class Collector(Latch):
    """Takes the ends of runs from the client's loop thread, for one waiter.

    Attributes:
        error: Why nothing more will come, else None.
        waited_for: The waiter is there.
    """

    __slots__ = (
        "_each",
        "_futures",
        "_next",
        "_offer",
        "_runtime",
        "_step",
        "_total",
        "_whole",
        "error",
        "waited_for",
    )

    def __init__(
        self,
        runtime: Runtime,
        futures: Sequence[Future],
        each: Callable[[Any], object] | None = None,
        *,
        watch: bool = True,
    ) -> None:
        """``watch`` False: the SUBMIT of the runs asks for their ends, and a waiter may ``take`` this.

        Without any futures as well, these follow: ``expect`` for each, then ``complete``.
        """
        super().__init__()
        self._next = ""
        self._step: Latch | None = None
        self.error: Exception | None = None
        self.waited_for = watch
        self._runtime = runtime
        self._each = each
        # Most have one; a list for each would be half of what the garbage collector has to look at.
        self._futures: dict[str, Future | list[Future]] = {}
        self._total = len(futures)
        self._whole = watch or bool(futures)
        self._offer = allocate_lock()
        for future in futures:
            self._add(future)
        if watch:
            runtime.watch(list(self._futures), self)

    def expect(self, future: Future) -> None:
        """Another one, whose SUBMIT is about to be sent."""
        self._total += 1
        self._futures[future._id] = future  # pyright: ignore[reportPrivateUsage]
        future._collector = self  # pyright: ignore[reportPrivateUsage]

    def complete(self) -> None:
        """All have been told; ``expect`` comes no more."""
        self._runtime.call(self._complete)

    def _complete(self) -> None:
        # On the loop thread, so that nothing ends in between.
        self._whole = True
        if not self._futures:
            self.set()

    def fits(self, futures: Sequence[Future]) -> bool:
        """Whether it waits for these and no others."""
        count = len(futures)
        if count == 1:
            return self._total == 1 and futures[0]._collector is self  # pyright: ignore[reportPrivateUsage]
        return (
            count == self._total
            and all(future._collector is self for future in futures)  # pyright: ignore[reportPrivateUsage]
            and len(set(map(id, futures))) == count
        )

    def take(self, runtime: Runtime) -> bool:
        """Wait with this one from now on; False when it can't be used (any more)."""
        if runtime is not self._runtime:  # closed since, or the one of the parent process
            return False
        if not self._offer.acquire(blocking=False):  # taken
            return False
        # Said first, looked second; the loop thread does the reverse, so a connection will be there.
        self.waited_for = True
        if self.error is not None:
            return False
        if not runtime.connected:
            runtime.wake()
        return True

    def ended(self, state: RunState) -> None:
        run_id = state.run_id
        found = self._futures.pop(run_id, None)
        if found is None:
            return
        for future in found if isinstance(found, list) else (found,):
            if future._id != run_id:  # pyright: ignore[reportPrivateUsage]
                # The end of a batch has told it that its idempotency key means another run.
                self._add(future)
                self._runtime.watch([future._id], self)  # pyright: ignore[reportPrivateUsage]
                continue
            future._final = state  # pyright: ignore[reportPrivateUsage]
            if self._each is not None:
                self._each(future)
        if run_id == self._next and self._step is not None:
            self._step.set()
        if not self._futures and self._whole:
            self.set()

    def moved(self, run_id: str, existing: str) -> None:
        found = self._futures.pop(run_id, None)
        if found is None:
            return
        for future in found if isinstance(found, list) else (found,):
            future.stand_for(existing)
            self._add(future)
        if run_id == self._next:
            self._next = existing

    def _add(self, future: Future) -> None:
        run_id = future._id  # pyright: ignore[reportPrivateUsage]
        known = self._futures.setdefault(run_id, future)
        if isinstance(known, list):
            known.append(future)
        elif known is not future:
            self._futures[run_id] = [known, future]

    def failed(self, error: Exception) -> None:
        self.error = error
        if self._each is not None:
            self._each(error)
        if self._step is not None:
            self._step.set()
        self.set()

    def wait_for(self, future: Future, timeout: float | None) -> bool:
        """Block until this one has ended; False when it has not, in ``timeout`` seconds or at all."""
        step = self._step = Latch()
        # Named first, looked at second; ``ended`` and ``failed`` do the reverse.
        self._next = future._id  # pyright: ignore[reportPrivateUsage]
        if not future.done and self.error is None:
            step.wait(timeout)
        return future.done

    def stop(self) -> None:
        """No longer interested; ends that come in the next moment are still taken."""
        self.waited_for = False
        left = list(self._futures)
        if left:
            self._runtime.unwatch(left, self)
