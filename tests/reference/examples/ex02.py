# Example 2, of task.

@task
async def add(x, y):
    return x + y
