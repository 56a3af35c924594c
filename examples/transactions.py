"""Steps that happen together or not at all: `python transactions.py` leaves no file behind."""

from pathlib import Path
from typing import Any

from prefect_lite import flow, task
from prefect_lite.transactions import get_transaction, transaction


@task
def write(name: str, text: str) -> None:
    """The first step."""
    Path(name).write_text(text)
    get_transaction().set("written", name)


@write.on_rollback
def remove(txn: Any) -> None:
    """What undoes it."""
    name = txn.get("written")
    Path(name).unlink()
    print(f"{name} is removed")


@task
def check(name: str) -> None:
    """The second step, which refuses what the first one has done."""
    if "total" not in Path(name).read_text():
        raise ValueError(f"{name} has no total")


@flow
def publish(text: str) -> None:
    """Both."""
    with transaction():
        write("report.txt", text)
        check("report.txt")


if __name__ == "__main__":
    print(publish("nothing", return_state=True).name)
    print(Path("report.txt").exists())
