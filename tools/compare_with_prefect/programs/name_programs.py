"""Names of task runs."""

import datetime

from observing import told
from prefect import flow, runtime, task


def _named(name, function=None):
    def look(x, y=2):
        return runtime.task_run.name

    return task(task_run_name=name)(function or look)


class _User:
    name = "ada"


def templates():
    return [
        _named("run {x}")(1),
        _named("{x}-{y}")(1),
        _named("{x:05d}")(3),
        _named("{x!r}")("a"),
        _named("{{x}}")(1),
        _named("plain")(1),
        _named("{x.name}")(_User()),
        _named("{x[a]}")({"a": 1}),
        _named("{x:%Y}")(datetime.date(2026, 1, 1)),
    ]


def templates_that_fail():
    return [
        told(lambda: _named("{nope}")(1)),
        told(lambda: _named("{")(1)),
        told(lambda: _named("{x.nope}")(1)),
        told(lambda: _named("{0}")(1)),
    ]


def failing_template_return_state():
    return told(lambda: _named("{nope}")(1, return_state=True))


def callables():
    return [_named(lambda: "made")(1), _named(lambda parameters: f"p{parameters['x']}{parameters['y']}")(1)]


def callables_that_fail():
    def bad():
        raise ValueError("name")

    return [
        told(lambda: _named(bad)(1)),
        told(lambda: _named(lambda: 3)(1)),
        told(lambda: _named(lambda: None)(1)),
        told(lambda: _named(lambda a, b: "x")(1)),
        told(lambda: _named(lambda a: "x")(1)),
    ]


def callables_with_defaults():
    return [
        told(lambda: _named(lambda parameters=None: str(sorted(parameters or {})))(1)),
        told(lambda: _named(lambda other=1: f"o{other}")(1)),
        told(lambda: _named(lambda **kwargs: str(kwargs))(1)),
    ]


def async_callables():
    async def name():
        return "async"

    return told(lambda: _named(name)(1))


def called_in_a_run():
    def name():
        return (
            f"{runtime.task_run.task_name}/{runtime.flow_run.flow_name}/{sorted(runtime.task_run.parameters)}"
        )

    made = _named(name)

    @flow
    def outer():
        return made(1)

    return [told(lambda: made(1)), told(outer)]


def how_often_asked():
    asked = []

    def name():
        asked.append(1)
        return f"n{len(asked)}"

    seen = []

    @task(task_run_name=name, retries=2)
    def flaky():
        seen.append(runtime.task_run.name)
        if len(seen) < 3:
            raise ValueError

    flaky()
    return [seen, len(asked)]


def names_of_mapped_runs():
    @flow
    def outer():
        return _named("m{x}").map([1, 2]).result()

    return outer()


def names_with_futures():
    one = task(lambda: 7)

    @flow
    def outer():
        return [_named("f{x}")(one.submit()), _named("f{x}").submit(one.submit()).result()]

    return outer()


def default_names():
    @task(name="given")
    def made():
        return runtime.task_run.name

    @flow
    def outer():
        return [made(), made.submit().result()]

    return outer()


def default_name_outside():
    @task(name="given")
    def made():
        return runtime.task_run.name

    return made()


def empty_names():
    return [told(lambda: _named("")(1).startswith("look")), told(lambda: _named(lambda: "")(1))]


def long_names():
    return [told(lambda: len(_named("x" * 300)(1)))]


def variable_arguments():
    def look(*args, **kwargs):
        return runtime.task_run.name

    return [told(lambda: _named("{args}{kwargs}", look)(1, a=2)), told(lambda: _named("{a}", look)(1, a=2))]


def names_with_options():
    made = _named("a{x}")
    return [
        made.with_options(task_run_name="b{x}")(1),
        made(1),
        told(lambda: made.with_options(task_run_name=None)(1).startswith("look")),
    ]
