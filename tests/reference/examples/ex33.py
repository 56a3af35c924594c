# Example 33, of Task.with_options.

from random import randint

@task(retries=1, retry_delay_seconds=5)
def my_task():
    x = randint(0, 5)
    if x >= 3:  # Make a task that fails sometimes
        raise ValueError("Retry me please!")
    return x

new_task = my_task.with_options(retries=5, retry_delay_seconds=2)
