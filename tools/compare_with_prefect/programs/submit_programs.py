"""submit, map and futures."""

import asyncio
import threading

from observing import told
from prefect import allow_failure, flow, task, unmapped
from prefect.futures import as_completed, resolve_futures_to_states, wait
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote


@task
def _add(x, y=1):
    return x + y


@task
async def _aadd(x, y=1):
    return x + y


@task
def _boom(x=0):
    raise ValueError("boom")


@task
def _same(x):
    return x


@task
def _odd(x):
    if x % 2 == 0:
        raise ValueError(f"even {x}")
    return x


def _in_flow(function, **options):
    @flow(**options)
    def outer():
        return told(function)

    return outer()


def submit():
    return _in_flow(
        lambda: [
            _add.submit(1).result(),
            _add.submit(1, y=5).result(),
            _aadd.submit(2).result(),
            _add.submit(1, return_state=True),
        ]
    )


def submit_outside():
    return told(lambda: _add.submit(1).result())


def submit_failure():
    return _in_flow(
        lambda: [
            told(lambda: _boom.submit().result()),
            _boom.submit().result(raise_on_failure=False),
            _boom.submit(return_state=True),
        ]
    )


def submit_states():
    def look():
        future = _add.submit(1)
        future.wait()
        return [future.state, future.task_run_id, future.wait(), told(lambda: future.result(timeout=1))]

    return _in_flow(look)


def submit_result_timeout():
    gate = threading.Event()

    @task
    def stuck():
        gate.wait(10)

    def look():
        future = stuck.submit()
        seen = [told(lambda: future.result(timeout=0.05)), told(lambda: future.wait(timeout=0.05))]
        gate.set()
        return seen

    return _in_flow(look)


def submit_arguments_that_do_not_fit():
    return _in_flow(
        lambda: [
            told(lambda: _add.submit().result()),
            told(lambda: _add.submit(1, 2, 3).result()),
            told(lambda: _add.submit(1, z=3).result()),
        ]
    )


def submit_from_async_flows():
    @flow
    async def outer():
        return [_add.submit(1).result(), _aadd.submit(1).result(), told(lambda: _boom.submit().result())]

    return asyncio.run(outer())


def submit_in_tasks():
    @task
    def outer():
        return _add.submit(1).result()

    return _in_flow(outer)


def returned_state_of_submit():
    failing = task(lambda: Failed(message="m"))
    fine = task(lambda: Completed(data=3, name="Mine"))
    return _in_flow(
        lambda: [
            fine.submit().result(),
            fine.submit(return_state=True),
            told(lambda: failing.submit().result()),
            failing.submit(return_state=True),
        ]
    )


def map_lists():
    return _in_flow(
        lambda: [
            _add.map([1, 2, 3]).result(),
            _add.map([1, 2], [3, 4]).result(),
            _add.map(x=[1, 2], y=[3, 4]).result(),
            _add.map([1, 2], 10).result(),
        ]
    )


def map_kinds():
    values = (
        [],
        "abc",
        {"a": 1, "b": 2},
        {1},
        range(3),
        (1, 2),
        b"ab",
        5,
        None,
        frozenset({2}),
        iter([1, 2]),
        bytearray(b"ab"),
        {"a": 1}.values(),
    )
    return _in_flow(lambda: [told(lambda value=value: _same.map(value).result()) for value in values])


def map_generators():
    return _in_flow(lambda: _same.map(i for i in range(3)).result())


def map_errors():
    return _in_flow(
        lambda: [
            told(lambda: _add.map([1, 2, 3], [1, 2])),
            told(lambda: _add.map(1, 2)),
            told(lambda: _add.map()),
            told(lambda: _add.map([1], z=2).result()),
        ]
    )


def map_unmapped():
    return _in_flow(
        lambda: [
            _add.map([1, 2], unmapped(5)).result(),
            _add.map([[1], [2]], unmapped([3])).result(),
            told(lambda: _add.map(unmapped(1), unmapped(2)).result()),
        ]
    )


def map_defaults():
    @task
    def made(x, items=(1, 2)):
        return x, items

    return _in_flow(lambda: made.map([1, 2, 3]).result())


def map_futures():
    return _in_flow(
        lambda: [
            _add.map(_same.submit([1, 2])).result(),
            _add.map([_same.submit(1), _same.submit(2)]).result(),
            _add.map(_add.map([1, 2])).result(),
            _add.map([1, 2], unmapped(_same.submit(3))).result(),
        ]
    )


def map_constants_that_are_futures():
    return _in_flow(lambda: told(lambda: _add.map([1, 2], _same.submit(5)).result()))


def map_failed_futures():
    return _in_flow(lambda: told(lambda: _add.map(_boom.submit()).result()))


def map_states():
    return _in_flow(
        lambda: [
            _same.map([Completed(data=1), Completed(data=2)]).result(),
            told(lambda: _same.map(Completed(data=[1, 2])).result()),
        ]
    )


def map_return_state():
    return _in_flow(lambda: [_add.map([1, 2], return_state=True), _odd.map([1, 2], return_state=True)])


def map_failures():
    return _in_flow(
        lambda: [
            told(lambda: _odd.map([1, 2, 3]).result()),
            _odd.map([1, 2, 3]).result(raise_on_failure=False),
        ]
    )


def map_wait_for():
    return _in_flow(
        lambda: [
            _add.map([1], wait_for=[_same.submit(1)]).result(),
            _add.map([1], wait_for=_same.submit(1)).result(),
        ]
    )


def map_quote():
    return _in_flow(
        lambda: [
            told(lambda: _same.map(quote([1, 2])).result()),
            told(lambda: _same.map(allow_failure([1, 2])).result()),
        ]
    )


def map_allowed_failures():
    return _in_flow(lambda: told(lambda: _same.map(allow_failure(_odd.map([1, 2]))).result()))


def map_async():
    @flow
    async def outer():
        return _aadd.map([1, 2]).result()

    return [asyncio.run(outer()), _in_flow(lambda: _aadd.map([1, 2]).result())]


def map_outside():
    return told(lambda: _add.map([1]).result())


def map_of_keyword_arguments():
    made = task(lambda **kwargs: kwargs)
    return _in_flow(lambda: told(lambda: made.map(a=[1, 2], b=3).result()))


def map_of_variable_arguments():
    made = task(lambda *args: args)
    return _in_flow(lambda: told(lambda: made.map([1, 2], [3, 4]).result()))


def map_lists_of_futures():
    def look():
        futures = _add.map([1, 2])
        futures.wait()
        return [
            len(futures),
            isinstance(futures, list),
            futures[0].result(),
            [f.result() for f in futures],
            told(lambda: futures.result(timeout=5)),
        ]

    return _in_flow(look)


def map_long_result_timeout():
    gate = threading.Event()
    stuck = task(lambda x: gate.wait(10))

    def look():
        futures = stuck.map([1, 2])
        seen = told(lambda: futures.result(timeout=0.05))
        gate.set()
        return seen

    return _in_flow(look)


def waiting():
    def look():
        futures = _add.map([1, 2, 3])
        done, open = wait(futures)
        return [len(done), len(open), sorted(f.result() for f in as_completed(futures))]

    return _in_flow(look)


def waiting_with_timeout():
    gate = threading.Event()
    stuck = task(lambda: gate.wait(10))

    def look():
        slow, fast = stuck.submit(), _add.submit(1)
        fast.wait()
        done, open = wait([slow, fast], timeout=0.1)
        late = told(lambda: [f.result() for f in as_completed([slow], timeout=0.05)])
        gate.set()
        return [len(done), len(open), late]

    return _in_flow(look)


def resolving():
    return _in_flow(
        lambda: [
            resolve_futures_to_states(_add.submit(1)),
            resolve_futures_to_states({"a": [_add.submit(1), 5]}),
            resolve_futures_to_states(3),
        ]
    )


def callbacks():
    def look():
        seen = []
        gate = threading.Event()
        future = _add.submit(1)
        future.add_done_callback(lambda f: (seen.append(f.result()), gate.set()))
        gate.wait(5)
        return seen

    return _in_flow(look)


def hashing():
    def look():
        a, b = _add.submit(1), _add.submit(1)
        return [a == a, a == b, len({a, b}), hash(a) == hash(a)]

    return _in_flow(look)


def submit_with_keyword_called_args():
    made = task(lambda args, kwargs: [args, kwargs])
    return _in_flow(lambda: made.submit(args=1, kwargs=2).result())


def a_state_of_a_future_before_it_ran():
    gate = threading.Event()
    stuck = task(lambda: gate.wait(10))

    def look():
        future = stuck.submit()
        seen = future.state.is_final()
        gate.set()
        return seen

    return _in_flow(look)


def mutated_arguments():
    def look():
        items = [1]
        future = task(lambda x: x.append(2)).submit(items)
        future.wait()
        return items

    return _in_flow(look)
