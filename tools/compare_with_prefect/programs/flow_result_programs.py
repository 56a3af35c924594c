"""What flows give: values, states and futures that they return, and failures."""

from observing import told
from prefect import flow, task
from prefect.states import Cancelled, Completed, Crashed, Failed


@task
def _add(x, y=1):
    return x + y


@task
def _boom():
    raise ValueError("boom")


def _flow(function, **options):
    return flow(**options)(function) if options else flow(function)


def values():
    return [
        told(lambda value=value: _flow(lambda: value)()) for value in (None, 1, [1, 2], {"a": 1}, "x", (1, 2))
    ]


def failures():
    def f():
        raise ValueError("boom")

    return [
        told(_flow(f)),
        _flow(f)(return_state=True),
        told(lambda: _flow(f)(return_state=True).result()),
        _flow(f)(return_state=True).result(raise_on_failure=False),
    ]


def return_state():
    return [_flow(lambda: 1)(return_state=True), _flow(lambda: 1)(return_state=True).result()]


def returned_states():
    makers = (
        lambda: Completed(data=5),
        lambda: Completed(message="m", name="Mine", data=1),
        lambda: Failed(message="m"),
        lambda: Failed(data=KeyError("k")),
        lambda: Cancelled(message="c"),
        lambda: Crashed(message="x"),
        lambda: Completed(),
    )
    return [[told(_flow(make)), told(lambda make=make: _flow(make)(return_state=True))] for make in makers]


def returned_states_of_other_runs():
    makers = (
        lambda: _add(1, return_state=True),
        lambda: _boom(return_state=True),
        lambda: [_add(1, return_state=True), _boom(return_state=True)],
        lambda: [_add(1, return_state=True)],
        lambda: _add.submit(1, return_state=True),
        lambda: {"a": _add(1, return_state=True)},
        lambda: [_add(1, return_state=True), 5],
        lambda: _add.map([1], return_state=True),
    )
    return [[told(_flow(make)), told(lambda make=make: _flow(make)(return_state=True))] for make in makers]


def returned_states_of_subflows():
    inner, fails = _flow(lambda: 3), _flow(lambda: 1 / 0)
    makers = (lambda: inner(return_state=True), lambda: fails(return_state=True))
    return [[told(_flow(make)), told(lambda make=make: _flow(make)(return_state=True))] for make in makers]


def returned_collections_of_states():
    makers = (
        lambda: [Completed(data=1), Failed(message="no")],
        lambda: [Completed(data=1)],
        lambda: (Completed(data=1), Cancelled()),
        lambda: [],  # noqa: PIE807 - a function of Python's own is another case
        lambda: [Completed(data=1), 5],
        lambda: {"a": Failed(message="no")},
        lambda: [_add.submit(1), Failed(message="no")],
        lambda: [_boom.submit(), Completed(data=1)],
        lambda: [_add.submit(1), Completed(data=1)],
    )
    return [[told(_flow(make)), told(lambda make=make: _flow(make)(return_state=True))] for make in makers]


def returned_futures():
    return [
        told(_flow(lambda: _add.submit(1))),
        told(_flow(lambda: _add.map([1, 2]))),
        told(_flow(lambda: {"a": _add.submit(1)})),
        told(_flow(lambda: [_add.submit(1), 3])),
    ]


def returned_futures_return_state():
    return [
        _flow(lambda: _add.submit(1))(return_state=True),
        _flow(lambda: _add.map([1, 2]))(return_state=True),
        _flow(lambda: [_add.submit(1), 3])(return_state=True),
    ]


def returned_failed_futures():
    return [
        told(_flow(lambda: _boom.submit())),
        told(lambda: _flow(lambda: _boom.submit())(return_state=True)),
        told(lambda: _flow(lambda: [_add.submit(1), _boom.submit()])(return_state=True)),
    ]


def returned_exceptions():
    return [
        told(_flow(lambda: ValueError("v"))),
        told(lambda: _flow(lambda: ValueError("v"))(return_state=True)),
    ]


def failures_nobody_looks_at():
    def f():
        _boom.submit()
        _boom(return_state=True)
        return 1

    return [told(lambda: _flow(f)(return_state=True))]


def failures_and_no_return():
    def f():
        _boom.submit()

    return told(lambda: _flow(f)(return_state=True))


def returned_nothing_with_failed_state():
    def f():
        _boom(return_state=True)

    return told(lambda: _flow(f)(return_state=True))
