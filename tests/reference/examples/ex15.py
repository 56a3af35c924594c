# Example 15, of Task.delay.

@flow
def my_flow():
    my_task.delay("marvin").wait()
