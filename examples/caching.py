"""Results that are kept: `python caching.py` computes twice, and nothing when it is run again on that day."""

from datetime import timedelta

from prefect_lite import task
from prefect_lite.cache_policies import INPUTS, TASK_SOURCE


@task(cache_policy=TASK_SOURCE + INPUTS - "verbose", cache_expiration=timedelta(days=1))
def square(number: int, verbose: bool = False) -> int:
    """Its key is made of its code and of `number`."""
    print(f"computing {number}")
    return number**2


if __name__ == "__main__":
    print(square(3), square(4))
    print(square(3, verbose=True))
    print(square(3, return_state=True).name)
