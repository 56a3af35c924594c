# Example 32, of Task.with_options.

@task(name="My task")
def my_task():
    return 1

new_task = my_task.with_options(name="My new task")
