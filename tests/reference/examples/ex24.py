# Example 24, of Task.serve.

@task
def my_task():
    return 1

my_task.serve()
