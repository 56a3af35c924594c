# Example 9, of Task.apply_async.

@flow
def my_flow():
    my_task.apply_async(("marvin",)).wait()
