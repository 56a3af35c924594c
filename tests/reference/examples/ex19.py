# Example 19, of Task.map. A syntax error in print is corrected.

@flow
def my_flow():
    futures = my_task.map([1, 2, 3])
    futures.wait()
    # Now all of the mapped tasks have finished
    my_task(10)
