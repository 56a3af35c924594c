"""Ways to submit and to wait; run `python tasks.py` in another terminal first, or afterwards."""

from tasks import add

import prefect_lite
from prefect_lite.futures import as_completed


def main() -> None:
    """Submit one run, a thousand in one frame, and a batch."""
    print("one:", add.delay(1, 2).result(timeout=30))

    many = add.map(range(1_000), 1, deferred=True)
    print("a thousand:", sum(future.result(timeout=60) for future in many))

    future = add.apply_async((add.delay(1, 2), add.delay(3, 4)))  # starts when both have their results
    print("of two others:", future.result(timeout=30))

    with prefect_lite.batch():
        futures = [add.delay(n, n) for n in range(10)]
    print("as they end:", [future.result() for future in as_completed(futures, timeout=30)])


if __name__ == "__main__":
    main()
