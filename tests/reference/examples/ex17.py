# Example 17, of Task.map.

from prefect_lite import task
@task
def my_task(x):
    return x + 1
