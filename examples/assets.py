"""What was made of what: `python assets.py` makes two tables and prints where the second comes from."""

from prefect_lite import flow
from prefect_lite.assets import add_asset_metadata, list_assets, materialize, read_asset

RAW, CLEAN = "file:///tables/raw.csv", "file:///tables/clean.csv"


@materialize(RAW)
def extract() -> list[int]:
    """Makes the first one."""
    return [3, 1, 2]


@materialize(CLEAN, by="python")
def clean(rows: list[int]) -> list[int]:
    """Makes the second one of what it gets."""
    add_asset_metadata(CLEAN, {"rows": len(rows)})
    return sorted(rows)


@flow
def nightly() -> None:
    """Makes both."""
    clean(extract())


if __name__ == "__main__":
    nightly()
    print([asset.key for asset in list_assets(prefix="file:///tables/")])
    made = read_asset(CLEAN).materializations[0]
    print(made.materialized_by, made.upstream, made.metadata)
