# Example 10, of Task.apply_async.

@flow
def my_flow():
    print(my_task.apply_async(("marvin",)).result())

my_flow()
# hello marvin
