# Example 7, of Task.apply_async.

from prefect_lite import task
@task
def my_task(name: str = "world"):
    return f"hello {name}"
