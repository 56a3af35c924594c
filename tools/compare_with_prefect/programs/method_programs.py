"""Methods, class methods, static methods and generators."""

import asyncio

from observing import told
from prefect import flow, task


def methods():
    class Box:
        def __init__(self, n):
            self.n = n

        @task
        def add(self, x):
            return self.n + x

    box = Box(2)
    return [
        box.add(1),
        box.add.ismethod,
        Box.add.ismethod,
        box.add.name,
        told(lambda: Box.add(box, 5)),
        Box(7).add(1),
        box.add(3),
    ]


def class_methods():
    class Box:
        n = 3

        @task
        @classmethod
        def outer(cls, x):
            return cls.n + x

    class Other(Box):
        n = 5

    return [
        Box.outer(1),
        told(lambda: Other.outer(1)),
        Box().outer(1),
        Box.outer.isclassmethod,
        Box.outer.ismethod,
        Box.outer.isstaticmethod,
    ]


def static_methods():
    class Box:
        @task
        @staticmethod
        def outer(x):
            return x

    return [
        Box.outer(1),
        Box().outer(2),
        Box.outer.isstaticmethod,
        Box.outer.isclassmethod,
        Box.outer.ismethod,
    ]


def class_methods_below():
    class Box:
        n = 3

        @classmethod
        @task
        def inner(cls, x):
            return cls.n + x

        @staticmethod
        @task
        def static(x):
            return x

    return [told(lambda: Box.inner(1)), told(lambda: Box.static(1)), told(lambda: Box().static(1))]


def async_methods():
    class Box:
        n = 2

        @task
        async def add(self, x):
            return self.n + x

    return asyncio.run(Box().add(1))


def methods_in_flows():
    class Box:
        n = 2

        @task
        def add(self, x):
            return self.n + x

    @flow
    def run():
        box = Box()
        return [box.add.submit(1).result(), box.add.map([1, 2]).result(), box.add.with_options(name="o")(5)]

    return run()


def methods_with_options():
    class Box:
        n = 2

        @task(retries=1)
        def add(self, x):
            return self.n + x

    other = Box().add.with_options(name="other")
    return [told(lambda: other(1)), other.name]


def flow_methods():
    class Box:
        n = 2

        @flow
        def add(self, x):
            return self.n + x

    return [Box().add(1)]


def generators():
    @task
    def count(n):
        yield from range(n)

    return [list(count(3)), type(count(1)).__name__]


def generators_that_return():
    @task
    def count():
        yield 1
        return 2

    steps = count()
    seen = [next(steps)]
    try:
        next(steps)
    except StopIteration as stop:
        seen.append(stop.value)
    return seen


def generators_that_raise():
    @task
    def count():
        yield 1
        raise ValueError("boom")

    steps = count()
    return [next(steps), told(lambda: next(steps))]


def generators_that_are_sent_to():
    @task
    def echo():
        got = yield 1
        yield got

    steps = echo()
    return [next(steps), told(lambda: steps.send(5))]


def generators_that_retry():
    attempts = []

    @task(retries=1)
    def count():
        attempts.append(1)
        yield 1
        if len(attempts) < 2:
            raise ValueError("boom")
        yield 2

    return [told(lambda: list(count())), len(attempts)]


def generators_submitted():
    @task
    def count(n):
        yield from range(n)

    @flow
    def run():
        return count.submit(3).result()

    return run()


def generators_mapped():
    @task
    def count(n):
        yield from range(n)

    @flow
    def run():
        return count.map([1, 2]).result()

    return run()


def generators_and_states():
    @task
    def count(n):
        yield from range(n)

    return told(lambda: count(3, return_state=True))


def async_generators():
    @task
    async def count(n):
        for i in range(n):
            yield i

    async def run():
        return [i async for i in count(3)]

    return asyncio.run(run())


def async_generators_submitted():
    @task
    async def count(n):
        for i in range(n):
            yield i

    @flow
    def run():
        return count.submit(3).result()

    return run()


def generator_hooks():
    events = []

    @task(
        on_completion=[lambda t, r, s: events.append(s.name)],
        on_running=[lambda t, r, s: events.append(s.name)],
    )
    def count():
        yield 1

    list(count())
    return events


def generators_closed_early():
    events = []

    @task(
        on_completion=[lambda t, r, s: events.append(s.name)],
        on_failure=[lambda t, r, s: events.append(s.name)],
    )
    def count():
        try:
            yield 1
            yield 2
        finally:
            events.append("closed")

    steps = count()
    next(steps)
    told(steps.close)
    return events


def flow_generators():
    @flow
    def count():
        yield 1
        yield 2

    return told(lambda: list(count()))


def generators_and_futures():
    @task
    def count(x):
        yield x

    @task
    def one():
        return 5

    @flow
    def run():
        return list(count(one.submit()))

    return run()
