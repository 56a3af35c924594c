"""The picture of a flow: its nodes and edges, and what can't be drawn."""

import os
import re
from pathlib import Path

import graphviz
from observing import told
from prefect import allow_failure, flow, task, unmapped


@task
def _one(x=1):
    return x


@task
def _two(x, y=None):
    return x


def _drawn(made, *args, **kwargs):
    """Labels of nodes, and edges between labels, of the graph that would be rendered."""
    _have_dot()
    graphs = []
    kept = graphviz.Digraph.render, graphviz.Digraph.view, graphviz.Digraph.pipe

    def noting(given):
        def instead(graph, *args, **kwargs):
            graphs.append(graph.source)
            return given

        return instead

    graphviz.Digraph.render = graphviz.Digraph.view = noting("")
    graphviz.Digraph.pipe = noting(b"")
    try:
        outcome = told(lambda: made.visualize(*args, **kwargs))
    finally:
        graphviz.Digraph.render, graphviz.Digraph.view, graphviz.Digraph.pipe = kept
    return [outcome, *map(_told_graph, graphs)]


def _have_dot():
    """A program of that name is looked for, and needs not do anything."""
    folder = Path("bin").resolve()
    if not folder.exists():
        folder.mkdir()
        (folder / "dot").write_text("#!/bin/sh\n")
        (folder / "dot").chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def _told_graph(source):
    edges = re.findall(r'^\s*("[^"]*"|\S+) -> ("[^"]*"|[^\s\[]+)', source, re.MULTILINE)
    nodes = re.findall(r'^\s*("[^"]*"|[^\s\[{}]+)(?: \[[^\]]*\])?$', source, re.MULTILINE)
    plain = re.compile(r'"')
    return {
        "nodes": sorted(plain.sub("", node) for node in nodes if node != "digraph"),
        "edges": sorted([plain.sub("", start), plain.sub("", end)] for start, end in edges),
    }


def called():
    @flow
    def made():
        first = _one()
        _two(first)

    return _drawn(made)


def submitted():
    @flow
    def made():
        first = _one.submit()
        second = _two.submit(first)
        _two.submit(1, wait_for=[second])

    return _drawn(made)


def mapped():
    @flow
    def made():
        many = _one.map([1, 2])
        _two.map(many, unmapped(3))
        _two(many)

    return _drawn(made)


def results_of_futures():
    @flow
    def made():
        first = _one.submit()
        _two(first.result())

    return _drawn(made)


def collections():
    @flow
    def made():
        first, second = _one(), _one()
        _two([first, {"a": second}])

    return _drawn(made)


def waiting():
    @flow
    def made():
        first = _one()
        _two(1, wait_for=[first])
        _two(1, wait_for=first)

    return _drawn(made)


def annotations():
    @flow
    def made():
        first = _one()
        _two(allow_failure(first), y=unmapped(first))

    return _drawn(made)


def values_to_return():
    seen = []

    @task(viz_return_value=5)
    def given():
        seen.append("ran")
        return 1

    @task(viz_return_value=[1, 2, 3])
    def listed():
        return []

    @flow
    def made():
        value = given()
        seen.append(value)
        for each in listed():
            _two(each)
        _two(value)

    return [_drawn(made), seen]


def values_that_are_none():
    seen = []

    @task(viz_return_value=None)
    def given():
        return 1

    @flow
    def made():
        seen.append(given() is None)

    return [_drawn(made), seen]


def without_a_value():
    seen = []

    @flow
    def made():
        value = _one()
        seen.append(told(lambda: value + 1))
        if value:
            seen.append("true")

    return [_drawn(made), seen]


def code_that_needs_values():
    @flow
    def made():
        return _one()["key"]

    return _drawn(made)


def errors_of_the_flow():
    @flow
    def made():
        raise ValueError("v")

    return _drawn(made)


def states():
    @flow
    def made():
        state = _one(return_state=True)
        _two(state)

    return _drawn(made)


def asynchronous():
    @task
    async def one():
        return 1

    @flow
    async def made():
        first = await one()
        await one()
        _two(first)

    return _drawn(made)


def flows_inside():
    @flow(name="inner flow")
    def inner(x):
        return _two(x)

    @flow
    def made():
        first = _one()
        value = inner(first)
        _two(value)

    return _drawn(made)


def with_parameters():
    @flow
    def made(x, y=2):
        for _ in range(y):
            _one(x)

    return [
        _drawn(made, 1),
        _drawn(made, 1, y=3),
        _drawn(made),
        _drawn(made, 1, 2, 3),
        _drawn(made, "a", y="b"),
    ]


def names_of_calls():
    @task(name="with a name", task_run_name="run-{x}")
    def named(x):
        return x

    @flow(name="a flow")
    def made():
        named(1)
        named(2)

    return _drawn(made)


def names():
    @task(name="with a name", task_run_name="run-{x}")
    def named(x):
        return x

    @flow(name="a flow")
    def made():
        named(1)
        named(2)
        named.submit(3)

    return _drawn(made)


def empty_flows():
    @flow
    def made():
        return 1

    return _drawn(made)


def background_runs():
    @flow
    def delays():
        _one.delay(1)

    @flow
    def applies():
        _one.apply_async((1,))

    return [_drawn(delays), _drawn(applies)]


def background_runs_with_a_value():
    @task(viz_return_value=3)
    def given():
        return 1

    @flow
    def delays():
        given.delay()

    return _drawn(delays)


def nothing_runs():
    events = []

    @task(
        on_running=[lambda *about: events.append("hook")],
        on_completion=[lambda *about: events.append("hook")],
    )
    def noting():
        events.append("ran")

    @flow(on_running=[lambda *about: events.append("flow hook")])
    def made():
        events.append("flow")
        noting()
        noting.submit()

    return [_drawn(made), events]


def task_inside_task():
    @task
    def outer():
        return _one()

    @flow
    def made():
        outer()

    return _drawn(made)


def methods():
    class Box:
        @task
        def one(self, x):
            return x

    @flow
    def made():
        _two(Box().one(1))

    return _drawn(made)


def after_the_picture():
    @flow
    def made():
        return _one(4)

    return [_drawn(made), made()]


def a_picture_outside():
    return told(lambda: _one(4))


def options_that_clash():
    return [
        task(viz_return_value=0)(lambda: 1).viz_return_value,
        task(lambda: 1).viz_return_value,
        task(viz_return_value=3)(lambda: 1).with_options(name="n").viz_return_value,
        task(viz_return_value=3)(lambda: 1)(),
    ]
