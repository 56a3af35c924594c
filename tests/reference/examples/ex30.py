# Example 30, of Task.submit.

@flow
async def my_flow():
    my_task.submit()
