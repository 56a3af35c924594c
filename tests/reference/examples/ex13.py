# Example 13, of Task.delay.

from prefect_lite import task
@task
def my_task(name: str = "world"):
    return f"hello {name}"
