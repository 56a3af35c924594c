"""``MaterializingTask`` and ``@materialize``: tasks that make assets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from prefect_lite.assets.core import Asset, as_plain, listed
from prefect_lite.assets.of_run import ASSETS, BY
from prefect_lite.exceptions import OptionTypeError
from prefect_lite.task_calls import R_co
from prefect_lite.tasks import Task, TaskOptions

P = ParamSpec("P")
R = TypeVar("R")


class MaterializingTask(Task[P, R_co]):
    """A task that makes assets; which run has made which is recorded.

    Attributes:
        assets: What it makes.
        materialized_by: The tool that does the work, such as "dbt" or "spark".
    """

    materializes = True
    assets: list[Asset]
    materialized_by: str | None

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        assets: Sequence[str | Asset],
        materialized_by: str | None = None,
        **task_kwargs: Unpack[TaskOptions],
    ) -> None:
        """``@materialize(*assets, by=materialized_by)`` makes it of a function.

        Args:
            fn: The function.
            assets: What it makes, as ``Asset`` or by their keys.
            materialized_by: The tool that does the work.
            **task_kwargs: See ``prefect_lite.options.Options``.

        Raises:
            ConfigurationError: The key of an asset or an option is impossible.
        """
        self.assets = listed(ASSETS, assets)
        self.materialized_by = _tool(materialized_by)
        super().__init__(fn, **task_kwargs)

    def with_options(  # type: ignore[override]
        self,
        assets: Sequence[str | Asset] | None = None,
        *,
        materialized_by: str | None = None,
        **task_kwargs: Unpack[TaskOptions],
    ) -> MaterializingTask[P, R_co]:
        """The same task with other assets or options; those not named stay.

        Args:
            assets: What it makes instead. None: the same.
            materialized_by: The tool that does the work. None: the same.
            **task_kwargs: See ``prefect_lite.options.Options``; ``None`` given means ``None``.

        Raises:
            ConfigurationError: The key of an asset or an option is impossible.
        """
        copy = cast("MaterializingTask[P, R_co]", super().with_options(**task_kwargs))
        if assets is not None:
            copy.assets = copy._changes[ASSETS] = listed(ASSETS, assets)
        if materialized_by is not None:
            copy.materialized_by = copy._changes[BY] = _tool(materialized_by)
        return copy

    @property
    def travelling_options(self) -> dict[str, Any]:
        """What ``with_options`` changed, the assets too, as plain data that goes with each run.

        Raises:
            OptionNotPortable: A changed option is a callable or another object only this process has.
        """
        others = self._copy()
        others._changes = {name: value for name, value in self._changes.items() if name not in (ASSETS, BY)}
        travelling = super(MaterializingTask, others).travelling_options
        if ASSETS in self._changes:
            travelling[ASSETS] = as_plain(self.assets)
        if BY in self._changes:
            travelling[BY] = self.materialized_by
        return travelling


def materialize(
    *assets: str | Asset, by: str | None = None, **task_kwargs: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], MaterializingTask[P, R]]:
    """Make a function a task that makes assets: ``@materialize("s3://bucket/table", by="dbt")``.

    Args:
        *assets: What it makes, as ``Asset`` or by their keys; one at least.
        by: The tool that does the work.
        **task_kwargs: See ``prefect_lite.options.Options``.

    Raises:
        TypeError: No asset was given.
        ConfigurationError: The key of an asset or an option is impossible.
    """
    if not assets:
        raise OptionTypeError(
            "materialize requires at least one asset argument, as in `@materialize(asset)`."
        )
    made = listed("assets", assets)

    def decorate(function: Callable[P, R]) -> MaterializingTask[P, R]:
        return MaterializingTask(function, assets=made, materialized_by=by, **task_kwargs)

    return decorate


def _tool(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise OptionTypeError(
            f"`materialized_by` must be a string, got {type(name).__name__} instead: {name!r}."
        )
    return name
