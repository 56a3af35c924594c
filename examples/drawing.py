"""What a flow would do, without doing it: `python drawing.py` prints the graph; see docs/visualization.md."""

from prefect_lite import flow, task
from prefect_lite.visualization import graph_of


@task(viz_return_value=["a.csv", "b.csv"])
def find_files(folder: str) -> list[str]:
    """Never called here: it gives the two names above while the flow is drawn."""
    raise NotImplementedError


@task
def load(path: str) -> int:
    """One file."""
    raise NotImplementedError


@task
def total(parts: list[int]) -> int:
    """All files together."""
    raise NotImplementedError


@flow
def report(folder: str) -> int:
    """The flow that is drawn."""
    return total(load.map(find_files(folder)).result())


if __name__ == "__main__":
    print(graph_of(report, "/data").source)  # report.visualize("/data") makes a picture of it
