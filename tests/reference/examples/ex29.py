# Example 29, of Task.submit.

@task
async def my_async_task():
    pass

@flow
async def my_flow():
    my_async_task.submit()
