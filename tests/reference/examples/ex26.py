# Example 26, of Task.submit.

from prefect_lite import flow
@flow
def my_flow():
    my_task.submit()
