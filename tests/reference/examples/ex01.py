# Example 1, of task.

@task
def add(x, y):
    return x + y
