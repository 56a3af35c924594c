"""Submitting from a web application: `pip install fastapi uvicorn`, then `uvicorn web:app`."""

from uuid import UUID

from fastapi import FastAPI
from tasks import add

from prefect_lite.futures import PrefectDistributedFuture

app = FastAPI()


@app.post("/sums")
async def submit(x: int, y: int) -> dict[str, str]:
    """Accept a sum; the answer is sent when the run is stored."""
    future = await add.adelay(x, y)
    return {"run": str(future.task_run_id)}


@app.get("/sums/{run}")
async def result(run: UUID) -> dict[str, int]:
    """Wait for a sum, also one that another process has submitted."""
    future: PrefectDistributedFuture[int] = PrefectDistributedFuture(run)
    return {"result": await future.result_async(timeout=30)}
