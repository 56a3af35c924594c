# Example 11, of Task.apply_async.

@task
def task_1():
    pass

@task
def task_2():
    pass

@flow
def my_flow():
    x = task_1.apply_async()

    # task 2 will wait for task_1 to complete
    y = task_2.apply_async(wait_for=[x])
