# Example 28, of Task.submit.

@flow
def my_flow():
    print(my_task.submit().result())

my_flow()
# hello
