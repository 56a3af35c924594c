# Example 25, of Task.submit.

from prefect_lite import task
@task
def my_task():
    return "hello"
