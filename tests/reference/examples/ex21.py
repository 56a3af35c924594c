# Example 21, of Task.map.

@task
def task_1(x):
    pass

@task
def task_2(y):
    pass

@flow
def my_flow():
    x = task_1.submit()

    # task 2 will wait for task_1 to complete
    y = task_2.map([1, 2, 3], wait_for=[x])
    return y
