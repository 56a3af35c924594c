# Example 16, of Task.delay.

@flow
def my_flow():
    print(my_task.delay("marvin").result())

my_flow()
# hello marvin
