"""Direct calls, and futures, states and annotations among the arguments."""

import asyncio
from dataclasses import dataclass

from observing import told
from prefect import allow_failure, flow, tags, task, unmapped
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running
from prefect.utilities.annotations import quote


@task
def _add(x, y=1):
    return x + y


@task
async def _aadd(x, y=1):
    return x + y


@task
def _boom():
    raise ValueError("boom")


@task
def _same(x):
    return x


def _in_flow(function, **options):
    @flow(**options)
    def outer():
        return told(function)

    return outer()


def direct():
    return [_add(1), _add(1, 2), _add(x=1, y=3), _same([1]), _same(None)]


def direct_async():
    return asyncio.run(_aadd(1))


def direct_failure():
    return told(_boom)


def direct_return_state():
    return [
        _add(1, return_state=True),
        _boom(return_state=True),
        asyncio.run(_aadd(1, return_state=True)),
        _add(1, return_state=False),
    ]


def result_of_return_state():
    return [
        _add(1, return_state=True).result(),
        told(lambda: _boom(return_state=True).result()),
        _boom(return_state=True).result(raise_on_failure=False),
    ]


def arguments_that_do_not_fit():
    return [
        told(lambda: _add()),
        told(lambda: _add(1, 2, 3)),
        told(lambda: _add(1, z=2)),
        told(lambda: _add(1, x=2)),
        told(lambda: asyncio.run(_aadd())),
    ]


def arguments_that_do_not_fit_return_state():
    return told(lambda: _add(return_state=True))


def type_error_inside():
    @task
    def inner():
        raise TypeError("missing a required argument: 'x'")

    return [told(inner), inner(return_state=True)]


def states_as_arguments():
    return [_add(Completed(data=4)), _same([Completed(data=4)]), _same({"a": Completed(data=1)})]


def unfinished_states_as_arguments():
    return [told(lambda: _add(Pending())), told(lambda: _add(Running()))]


def failed_states_as_arguments():
    return [
        told(lambda: _add(Failed(message="no"))),
        told(lambda: _add(Failed(message="no"), return_state=True)),
    ]


def annotations_of_plain_values():
    return [
        told(lambda: _same(quote([1]))),
        told(lambda: _same(unmapped([1]))),
        told(lambda: _same(allow_failure(3))),
    ]


def quoted_futures():
    return _in_flow(lambda: type(_same(quote([_add.submit(1)]))[0]).__name__.endswith("Future"))


def quoted_states():
    return told(lambda: _same(quote(Completed(data=1))))


def futures_as_arguments():
    return _in_flow(lambda: [_add(_add.submit(1)), _add(1, y=_add.submit(1))])


def nested_futures():
    return _in_flow(lambda: _same({"a": [_add.submit(1)], "b": (_add.submit(2),), "c": {3}}))


def futures_in_dataclasses():
    @dataclass
    class Pair:
        a: object
        b: object

    return _in_flow(lambda: [getattr(_same(Pair(_add.submit(1), 2)), name) for name in "ab"])


def futures_in_frozen_dataclasses():
    @dataclass(frozen=True)
    class Pair:
        a: object

    return _in_flow(lambda: _same(Pair(_add.submit(1))).a)


def futures_in_sets():
    return _in_flow(lambda: _same({_add.submit(1), _add.submit(2)}))


def futures_as_keys():
    return _in_flow(lambda: _same({_add.submit(1): 5}))


def futures_in_generators():
    return _in_flow(lambda: type(_same(f for f in [_add.submit(1)])).__name__)


def failed_futures_as_arguments():
    return _in_flow(
        lambda: [told(lambda: _add(_boom.submit())), _add(_boom.submit(), return_state=True).is_failed()]
    )


def failed_futures_as_arguments_of_submit():
    return _in_flow(lambda: _add.submit(_boom.submit()).state)


def failed_futures_allowed():
    return _in_flow(
        lambda: [
            _same(allow_failure(_boom.submit())),
            _same([allow_failure(_boom.submit())]),
            _same.submit(allow_failure(_boom.submit())).result(),
        ]
    )


def failed_states_allowed():
    return told(lambda: _same(allow_failure(Failed(data=ValueError("v")))))


def wait_for():
    order = []

    @task
    def slow():
        order.append("slow")

    @task
    def after():
        order.append("after")

    _in_flow(
        lambda: (
            after.submit(wait_for=[slow.submit()]).wait(),
            after(wait_for=slow.submit()),
            after.submit(wait_for=[[slow.submit()]]).wait(),
        )
    )
    return order


def wait_for_failed():
    return _in_flow(lambda: told(lambda: _add(1, wait_for=[_boom.submit()])))


def wait_for_failed_allowed():
    return _in_flow(
        lambda: [
            _add(1, wait_for=[allow_failure(_boom.submit())]),
            _add.submit(1, wait_for=[allow_failure(_boom.submit())]).result(),
        ]
    )


def wait_for_states_and_values():
    return [
        told(lambda: _add(1, wait_for=[Completed()])),
        told(lambda: _add(1, wait_for=[5])),
        told(lambda: _add(1, wait_for=None)),
        told(lambda: _add(1, wait_for=[])),
    ]


def returned_states():
    makers = (
        lambda: Completed(data=5),
        lambda: Completed(message="m", name="Mine", data=1),
        lambda: Failed(message="m"),
        lambda: Failed(data=KeyError("k")),
        lambda: Cancelled(message="c"),
        lambda: Crashed(message="x"),
    )
    return [[told(task(make)), told(lambda make=make: task(make)(return_state=True))] for make in makers]


def returned_states_of_other_runs():
    fine, fails = task(lambda: 5), task(lambda: 1 / 0)
    makers = (
        lambda: fine(return_state=True),
        lambda: fails(return_state=True),
        lambda: [fine(return_state=True), fails(return_state=True)],
        lambda: [fine(return_state=True)],
    )
    return [[told(task(make)), told(lambda make=make: task(make)(return_state=True))] for make in makers]


def returned_unfinished_states():
    return told(lambda: task(lambda: Failed(name="Odd", message="m"))(return_state=True))


def returned_collections_of_states():
    def made(value):
        return task(lambda: value)

    return [
        told(lambda value=value: made(value)(return_state=True))
        for value in (
            [Completed(data=1), Failed()],
            [Completed(data=1)],
            (Completed(data=1), Cancelled()),
            [],
            [Completed(data=1), 5],
            {"a": Failed()},
            [[Failed()]],
            {Completed(data=1)},
        )
    ]


def returned_exceptions():
    made = task(lambda: ValueError("v"))
    return [made(), made(return_state=True), told(lambda: made(return_state=True).result())]


def returned_futures():
    @task
    def outer():
        return _add.submit(1)

    return _in_flow(lambda: [outer(), outer(return_state=True)])


def nested_tasks():
    @task
    def outer(x):
        return _add(x) + _add(x)

    return [outer(1), _in_flow(lambda: outer.submit(1).result())]


def nested_failure():
    @task
    def outer():
        return _boom()

    return [told(outer), outer(return_state=True)]


def sync_in_async():
    @task
    async def outer():
        return _add(1)

    return asyncio.run(outer())


def async_in_sync():
    @task
    def outer():
        return asyncio.run(_aadd(1))

    return outer()


def keyboard_interrupt():
    @task
    def stop():
        raise KeyboardInterrupt

    return told(stop)


def system_exit():
    @task
    def stop():
        raise SystemExit(3)

    return [told(stop), told(lambda: stop(return_state=True))]


def cancelled_error():
    @task
    async def stop():
        raise asyncio.CancelledError

    return told(lambda: asyncio.run(stop()))


def arguments_are_not_copied():
    items = [1]
    return [task(lambda x: x is items)(items), task(lambda x: x.append(2))(items), items]


def variable_arguments():
    made = task(lambda *args, **kwargs: [args, kwargs])
    return [made(1, 2, a=3), made(), told(lambda: made(1, return_state=True).result())]


def positional_only():
    @task
    def made(a, /, b, *, c=3):
        return a, b, c

    return [made(1, 2), told(lambda: made(a=1, b=2))]


def same_exception_object():
    error = ValueError("v")

    @task
    def stop():
        raise error

    try:
        stop()
    except ValueError as caught:
        return [
            caught is error,
            stop(return_state=True).data is error if hasattr(stop(return_state=True), "data") else None,
        ]


def tags_around():
    @task(tags={"own"})
    def made():
        from prefect.context import TaskRunContext

        return sorted(TaskRunContext.get().task_run.tags)

    with tags("a", "b"), tags("c"):
        inner = made()
    return [inner, made()]


def tags_context():
    with tags("a", "b") as outer, tags("c") as inner:
        return [outer, inner]


def concurrent_async_calls():
    async def run():
        return await asyncio.gather(*(_aadd(i) for i in range(3)))

    return asyncio.run(run())
