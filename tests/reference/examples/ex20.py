# Example 20, of Task.map.

@flow
def my_flow():
    futures = my_task.map([1, 2, 3])
    for x in futures.result():
        print(x)
my_flow()
# 2
# 3
# 4
