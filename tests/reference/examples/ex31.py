# Example 31, of Task.submit.

@task
def task_1():
    pass

@task
def task_2():
    pass

@flow
def my_flow():
    x = task_1.submit()

    # task 2 will wait for task_1 to complete
    y = task_2.submit(wait_for=[x])
