# Example 4, of task.

@task(name="The Ultimate Task")
def my_task():
    pass
