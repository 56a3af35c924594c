# Example 18, of Task.map.

from prefect_lite import flow
@flow
def my_flow():
    return my_task.map([1, 2, 3])
