# Example 3, of task.

@task(tags={"a", "b"}, description="This task is empty but its my first!")
def my_task():
    pass
