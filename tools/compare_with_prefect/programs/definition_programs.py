"""Tasks and their options."""

import functools
import inspect

from observing import told
from prefect import Task, task
from prefect.tasks import exponential_backoff


def _add(x, y=1):
    """Adds."""
    return x + y


def _hook(task, run, state): ...


def plain():
    made = task(_add)
    return [
        made.name,
        made.description,
        made.tags,
        made.version,
        made.retries,
        made.retry_delay_seconds,
        made.timeout_seconds,
        made.log_prints,
        made.task_run_name,
        made.persist_result,
        made.isasync,
        made.isgenerator,
        made.retry_jitter_factor,
        made.retry_condition_fn,
        made.viz_return_value,
        made.cache_key_fn,
        made.cache_expiration,
        made.refresh_cache,
        made.result_storage_key,
        made.on_completion_hooks,
        made.on_failure_hooks,
        made.on_running_hooks,
    ]


def every_option_none():
    names = [
        "name",
        "description",
        "tags",
        "version",
        "cache_policy",
        "cache_key_fn",
        "cache_expiration",
        "task_run_name",
        "retries",
        "retry_delay_seconds",
        "retry_jitter_factor",
        "persist_result",
        "result_storage",
        "result_storage_key",
        "result_serializer",
        "timeout_seconds",
        "log_prints",
        "refresh_cache",
        "on_failure",
        "on_completion",
        "on_running",
        "on_commit",
        "on_rollback",
        "retry_condition_fn",
        "viz_return_value",
        "asset_deps",
    ]
    return {name: told(lambda name=name: bool(task(**{name: None})(_add))) for name in names}


def retries():
    return {
        repr(value): told(lambda value=value: task(retries=value)(_add).retries)
        for value in (0, 3, 1_000, None, "2")
    }


def retry_delays():
    values = (
        0,
        2,
        2.5,
        [1, 2, 3],
        [],
        [1.5],
        (1, 2),
        lambda retries: [retries],
        None,
        [1] * 50,
        [1] * 51,
        lambda retries: [1] * 51,
        exponential_backoff(2),
    )
    return [
        told(lambda value=value: task(retries=3, retry_delay_seconds=value)(_add).retry_delay_seconds)
        for value in values
    ]


def jitter():
    return {
        repr(value): told(
            lambda value=value: task(retries=1, retry_jitter_factor=value)(_add).retry_jitter_factor
        )
        for value in (0, 0.5, 2, -1, -0.1, None)
    }


def backoff():
    return [exponential_backoff(10)(4), exponential_backoff(0.5)(2), exponential_backoff(1)(0)]


def hooks_that_are_no_lists():
    return {
        name: [
            told(lambda name=name, value=value: bool(task(**{name: value})(_add)))
            for value in (_hook, [1], "x", [], (_hook,), {_hook: 1})
        ]
        for name in ("on_completion", "on_failure", "on_running", "on_commit", "on_rollback")
    }


def condition_that_is_none():
    return [
        told(lambda value=value: bool(task(retry_condition_fn=value)(_add))) for value in (1, "x", [], _hook)
    ]


def run_names_of_wrong_types():
    return [
        told(lambda value=value: bool(task(task_run_name=value)(_add)))
        for value in (1, [], "", "a", _hook, b"x")
    ]


def unknown_option():
    return [
        told(lambda: task(retrys=3)(_add)),
        told(lambda: task(_add).with_options(retrys=3)),
        told(lambda: Task(_add, retrys=3)),
    ]


def no_function():
    return [told(lambda: Task(1)), told(lambda: task(1)), told(lambda: task("name")(_add))]


def tags():
    return [task(tags={"a", "b"})(_add).tags, task(tags=["b", "a", "a"])(_add).tags, task(tags=[])(_add).tags]


def descriptions():
    def plain(): ...

    def indented():
        """First.

        Second.
        """

    return [
        task(plain).description,
        task(indented).description,
        task(description="")(indented).description,
        task(description="own")(indented).description,
    ]


def names():
    return [
        task(name="a b/c")(_add).name,
        task(name="")(_add).name,
        task(lambda x: x).name,
        told(lambda: task(functools.partial(_add, 1)).name),
    ]


def callable_objects():
    class Adder:
        """Adder."""

        def __call__(self, x):
            return x + 1

    made = task(Adder())
    return [made.name, made(1), made.description, made.isasync]


def classes():
    return [told(lambda: task(int)("3")), told(lambda: task(int).name)]


def builtins():
    return [told(lambda: task(len)([1])), told(lambda: task(sum)([1, 2]))]


def partials():
    return [told(lambda: task(functools.partial(_add, 1))(2))]


def attributes_of_the_function():
    made = task(_add)
    return [
        made.fn is _add,
        made.__name__,
        made.__doc__,
        made.__module__ == _add.__module__,
        str(inspect.signature(made)),
        made.__wrapped__ is _add if hasattr(made, "__wrapped__") else "none",
    ]


def with_options_keeps():
    made = task(
        name="n",
        description="d",
        tags={"a"},
        version="1",
        retries=2,
        retry_delay_seconds=[1, 2],
        timeout_seconds=3,
        log_prints=True,
        task_run_name="x-{x}",
        on_failure=[_hook],
        on_completion=[_hook],
        on_running=[_hook],
        retry_jitter_factor=0.5,
        retry_condition_fn=_hook,
    )(_add).with_options(name="m")
    return [
        made.name,
        made.description,
        made.tags,
        made.version,
        made.retries,
        made.retry_delay_seconds,
        made.timeout_seconds,
        made.log_prints,
        made.task_run_name,
        len(made.on_failure_hooks),
        len(made.on_completion_hooks),
        len(made.on_running_hooks),
        made.retry_jitter_factor,
        made.retry_condition_fn is _hook,
    ]


def with_options_replaces():
    made = task(tags={"a"}, retries=3, retry_delay_seconds=5, on_failure=[_hook])(_add)
    other = made.with_options(tags={"b"}, retries=0, retry_delay_seconds=[1, 2], on_failure=[])
    return [
        other.tags,
        other.retries,
        other.retry_delay_seconds,
        other.on_failure_hooks,
        made.tags,
        made.retries,
        len(made.on_failure_hooks),
    ]


def with_options_none():
    made = task(
        name="n",
        description="d",
        tags={"a"},
        retries=2,
        retry_delay_seconds=5,
        timeout_seconds=3,
        log_prints=True,
        task_run_name="x",
        on_failure=[_hook],
        retry_jitter_factor=0.5,
        retry_condition_fn=_hook,
    )(_add)
    return {
        name: told(
            lambda name=name: getattr(
                made.with_options(**{name: None}), {"on_failure": "on_failure_hooks"}.get(name, name)
            )
        )
        for name in (
            "retries",
            "retry_delay_seconds",
            "log_prints",
            "task_run_name",
            "retry_jitter_factor",
            "retry_condition_fn",
        )
    }


def with_options_none_that_stay():
    made = task(name="n", description="d", tags={"a"}, timeout_seconds=3, on_failure=[_hook])(_add)
    return {
        name: told(
            lambda name=name: getattr(
                made.with_options(**{name: None}), {"on_failure": "on_failure_hooks"}.get(name, name)
            )
        )
        for name in ("name", "description", "tags", "timeout_seconds", "on_failure")
    }


def with_options_of_wrong_values():
    made = task(_add)
    return [
        told(lambda: made.with_options(retry_jitter_factor=-1)),
        told(lambda: made.with_options(retry_delay_seconds=[1] * 51)),
        told(lambda: made.with_options(on_failure=_hook)),
        told(lambda: made.with_options(task_run_name=3)),
        told(lambda: made.with_options(retry_condition_fn=3)),
    ]


def reserved_names():
    def one(wait_for): ...
    def two(return_state): ...
    def three(self): ...
    def four(deferred): ...

    return [told(lambda function=function: bool(task(function))) for function in (one, two, three, four)]


def timeouts():
    return [
        told(lambda value=value: task(timeout_seconds=value)(_add).timeout_seconds)
        for value in (1, 0.5, 0, None, -1)
    ]


def result_keys():
    return [
        told(lambda value=value: task(result_storage_key=value)(_add).result_storage_key)
        for value in ("k", None)
    ]


def caching_options_that_clash():
    return [
        told(lambda: task(persist_result=False, cache_key_fn=lambda c, p: "k")(_add).persist_result),
        told(lambda: task(cache_key_fn=lambda c, p: "k")(_add).persist_result),
        told(lambda: task(result_storage_key="k")(_add).persist_result),
        told(lambda: task(refresh_cache=True)(_add).refresh_cache),
    ]


def decorated_hooks():
    @task
    def made(): ...

    returned = made.on_failure(_hook), made.on_completion(_hook), made.on_running(_hook)
    return [
        [function is _hook for function in returned],
        len(made.on_failure_hooks),
        len(made.on_completion_hooks),
        len(made.on_running_hooks),
        told(lambda: made.on_failure(1)),
    ]


def kinds_of_functions():
    async def one(): ...
    def two():
        yield 1

    async def three():
        yield 1

    return [[made.isasync, made.isgenerator] for made in map(task, (one, two, three))]


def reprs():
    return [bool(repr(task(_add))), isinstance(task(_add), Task), callable(task(_add))]


def tasks_of_tasks():
    return [told(lambda: task(task(_add))(1))]


def parameters():
    made = task(_add)
    return [told(lambda: bool(made.task_key)), told(lambda: made.task_key.rsplit("-")[0].split(".")[-1])]
