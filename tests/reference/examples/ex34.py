# Example 34, of Task.with_options. A syntax error in print is corrected.

@task(name="My task")
def my_task():
    return 1

@flow
def my_flow():
    new_task = my_task.with_options(name="My new task")
    new_task()
