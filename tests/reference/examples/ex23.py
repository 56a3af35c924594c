# Example 23, of Task.map.

from prefect_lite import unmapped

@task
def add_n_to_items(items, n):
    return [item + n for item in items]

@flow
def my_flow():
    return add_n_to_items.map(unmapped([10, 20]), n=[1, 2, 3])

my_flow()
# [[11, 21], [12, 22], [13, 23]]
