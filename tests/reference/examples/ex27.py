# Example 27, of Task.submit.

@flow
def my_flow():
    my_task.submit().wait()
