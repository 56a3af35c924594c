"""Assets: keys and properties, tasks that materialize them, dependencies."""

from observing import told
from prefect import flow, task
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.tasks import MaterializingTask


def _same(x=1):
    return x


def keys():
    return [
        told(lambda key=key: Asset(key=key).key)
        for key in (
            "s3://bucket/key",
            "postgres://db/table",
            "file:///a",
            "my-app://x_y.z",
            "no scheme",
            "s3:/one",
            "s3://",
            "://x",
            "",
            "S3://Upper",
            "s3://with space",
            "s3://a?b=c",
            "s3://ü",
            "s3://a#b",
            "s3://a/%20",
            "s3://a\n",
            "s3+x://a",
            "a.b://c",
            "1s://a",
            "s3://" + "x" * 600,
        )
    ]


def keys_of_other_types():
    return [told(lambda: Asset(key=5)), told(lambda: Asset()), told(lambda: Asset("s3://a"))]


def lengths_of_keys():
    return [
        type(told(lambda size=size: Asset(key="s3://" + "x" * size).key)).__name__
        for size in (400, 507, 508, 600)
    ]


def characters_of_keys():
    return "".join(
        character
        for character in map(chr, range(32, 127))
        if isinstance(told(lambda character=character: Asset(key=f"s3://a{character}b").key), str)
    )


def properties():
    asset = Asset(
        key="s3://bucket/key",
        properties=AssetProperties(name="n", description="d", url="https://u", owners=["a", "b"]),
    )
    found = asset.properties
    empty = AssetProperties()
    return [
        [found.name, found.description, found.url, found.owners],
        [empty.name, empty.description, empty.url, empty.owners],
        Asset(key="s3://a").properties,
        told(lambda: AssetProperties(zz=1)),
        told(lambda: AssetProperties(owners="a")),
        told(lambda: AssetProperties(name=5)),
        told(lambda: Asset(key="s3://a", properties={"name": "n"}).properties.name),
    ]


def equality():
    return [
        Asset(key="s3://a") == Asset(key="s3://a"),
        Asset(key="s3://a") == Asset(key="s3://b"),
        Asset(key="s3://a", properties=AssetProperties(name="n")) == Asset(key="s3://a"),
        told(lambda: hash(Asset(key="s3://a")) == hash(Asset(key="s3://a"))),
        told(lambda: setattr(Asset(key="s3://a"), "key", "s3://b")),
        told(lambda: str(Asset(key="s3://a"))),
        told(lambda: repr(Asset(key="s3://a"))),
    ]


def materialized():
    made = materialize("s3://a", Asset(key="s3://b"))(_same)
    return [
        type(made).__name__,
        isinstance(made, MaterializingTask),
        [type(asset).__name__ for asset in made.assets],
        [asset.key for asset in made.assets],
        made.materialized_by,
        made.name,
        made(3),
    ]


def materialized_with_options():
    made = materialize("s3://a", by="dbt", name="named", retries=2, tags={"t"})(_same)
    return [made.materialized_by, made.name, made.retries, made.tags, made.persist_result, made(1)]


def materialized_wrongly():
    return [
        told(lambda: materialize()(_same)),
        told(lambda: materialize("no scheme")(_same)),
        told(lambda: materialize(5)(_same)),
        told(lambda: materialize(["s3://a"])(_same)),
        told(lambda: materialize("s3://a", zz=1)(_same)),
        told(lambda: materialize(_same)),
        told(lambda: materialize("s3://a", by=5)(_same).materialized_by),
    ]


def the_class():
    made = MaterializingTask(_same, assets=["s3://a", Asset(key="s3://b")], materialized_by="spark", name="n")
    return [
        [asset.key for asset in made.assets],
        made.materialized_by,
        made.name,
        made(2),
        told(lambda: MaterializingTask(_same, assets=None).assets),
        told(lambda: MaterializingTask(_same)),
        told(lambda: MaterializingTask(_same, assets=[]).assets),
        told(lambda: MaterializingTask(_same, assets=["x"])),
    ]


def with_options():
    made = materialize("s3://a", by="dbt", asset_deps=["s3://up"])(_same)
    renamed = made.with_options(name="other")
    moved = made.with_options(assets=["s3://b"])
    return [
        [type(each).__name__ for each in (renamed, moved)],
        [renamed.name, [asset.key for asset in renamed.assets], renamed.materialized_by],
        [
            [asset.key for asset in moved.assets],
            moved.materialized_by,
            [asset.key for asset in moved.asset_deps],
        ],
        [asset.key for asset in made.assets],
        told(lambda: [asset.key for asset in made.with_options(assets=[]).assets]),
        told(lambda: made.with_options(assets=["bad"])),
        told(lambda: made.with_options(assets=[Asset(key="s3://c")])(4)),
    ]


def with_options_of_materialized_by():
    made = materialize("s3://a", by="dbt")(_same)
    return told(lambda: made.with_options(materialized_by="spark").materialized_by)


def dependencies():
    made = task(asset_deps=["s3://a", Asset(key="s3://b")])(_same)
    return [
        [type(asset).__name__ for asset in made.asset_deps],
        [asset.key for asset in made.asset_deps],
        task(_same).asset_deps,
        told(lambda: task(asset_deps=[])(_same).asset_deps),
        told(lambda: task(asset_deps=["bad"])(_same)),
        told(lambda: task(asset_deps=[5])(_same)),
        told(lambda: task(asset_deps="s3://a")(_same)),
        [asset.key for asset in made.with_options(name="n").asset_deps],
        told(lambda: made.with_options(asset_deps=["s3://c"]).asset_deps[0].key),
        made(1),
    ]


def in_flows():
    made = materialize("s3://a", asset_deps=["s3://up"])(_same)
    after = materialize("s3://b")(_same)

    @flow
    def outer():
        first = made.submit(1)
        return [first.result(), after(first), after.submit(first).result(), made.map([1, 2]).result()]

    return told(outer)


def failures():
    @materialize("s3://a")
    def made():
        raise ValueError("v")

    return [told(made), made(return_state=True)]


def asynchronous():
    import asyncio

    @materialize("s3://a")
    async def made(x):
        return x

    return [made.isasync, asyncio.run(made(1))]


def metadata():
    @materialize("s3://a")
    def made():
        add_asset_metadata("s3://a", {"rows": 1})
        add_asset_metadata(Asset(key="s3://a"), {"more": 2})
        return 1

    return told(made)


def metadata_of_other_assets():
    @materialize("s3://a")
    def made():
        return told(lambda: add_asset_metadata("s3://other", {"rows": 1}))

    @task
    def plain():
        return told(lambda: add_asset_metadata("s3://a", {"rows": 1}))

    @materialize("s3://a")
    def odd():
        return [
            told(lambda: add_asset_metadata("s3://a", 5)),
            told(lambda: add_asset_metadata("s3://a", {})),
            told(lambda: add_asset_metadata(5, {})),
            told(lambda: add_asset_metadata("bad", {})),
        ]

    return [told(made), told(plain), told(odd), told(lambda: add_asset_metadata("s3://a", {}))]


def metadata_methods():
    asset = Asset(key="s3://a")

    @materialize(asset)
    def made():
        return told(lambda: asset.add_metadata({"rows": 1}))

    return told(made)


def cached_and_materialized():
    from pathlib import Path

    from prefect.cache_policies import INPUTS

    made = materialize("s3://a", cache_policy=INPUTS, result_storage=Path("assets").resolve())(_same)
    return [made(1, return_state=True), made(1, return_state=True)]


def methods():
    class Box:
        @materialize("s3://a")
        def made(self, x):
            return x

    return told(lambda: Box().made(2))


def many_assets():
    made = materialize(*(f"s3://a/{number}" for number in range(20)))(_same)
    same = materialize("s3://a", "s3://a")(_same)
    return [len(made.assets), len(same.assets), same(1)]
