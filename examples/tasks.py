"""The example of the README: `python tasks.py` serves, see `client.py` for the other side."""

from prefect_lite import task


@task(retries=2, retry_delay_seconds=0.5, timeout_seconds=10, log_prints=True)
def add(x: int, y: int) -> int:
    """Add two numbers."""
    print("adding")
    return x + y


if __name__ == "__main__":
    add.serve()
