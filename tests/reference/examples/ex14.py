# Example 14, of Task.delay.

from prefect_lite import flow
@flow
def my_flow():
    my_task.delay("marvin")
