# Example 12, of Task.aserve.

@task
def my_task():
    return 1

await my_task.aserve()
