# Example 22, of Task.map.

@task
def display(prefix, item):
   print(prefix, item)

@flow
def my_flow():
    return display.map("Check it out: ", [1, 2, 3])

my_flow()
# Check it out: 1
# Check it out: 2
# Check it out: 3
