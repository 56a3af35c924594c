# Example 8, of Task.apply_async.

from prefect_lite import flow
@flow
def my_flow():
    my_task.apply_async(("marvin",))
