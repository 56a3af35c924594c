"""Flows are drawn without running their tasks: the graph, what the code of a flow gets, and the picture."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prefect_lite import flow, get_run_logger, tags, task, task_calls
from prefect_lite.exceptions import (
    FlowVisualizationError,
    GraphvizExecutableNotFoundError,
    GraphvizImportError,
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    VisualizationUnsupportedError,
)
from prefect_lite.futures import as_completed, wait
from prefect_lite.local_runs import close_threads
from prefect_lite.states import State
from prefect_lite.utilities.annotations import allow_failure, quote, unmapped
from prefect_lite.visualization import agraph_of, graph_of, tracker
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"


@task
def one(x: Any = 0, y: Any = 0) -> Any:
    raise AssertionError("a task runs while its flow is drawn")


@task
async def aone(x: Any = 0) -> Any:
    raise AssertionError("a task runs while its flow is drawn")


@task(viz_return_value=[10, 20, 30])
def several() -> list[int]:
    raise AssertionError("a task runs while its flow is drawn")


def drawn(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Nodes and arrows of the flow made of ``fn``."""
    return lines_of(graph_of(flow(fn), *args, **kwargs))


def lines_of(graph: Any) -> list[str]:
    return [line.strip().replace('"', "") for line in graph.source.splitlines()[1:-1]]


def arrows(lines: list[str]) -> list[str]:
    return [line for line in lines if "->" in line]


# -- the graph ---------------------------------------------------------------------------------------------


def test_direct_calls_are_nodes_and_arguments_are_arrows() -> None:
    def body(n: int) -> None:
        first = one(n)
        second = one(first)
        one(second, first)

    assert drawn(body, 3) == [
        "one-0", "one-1", "one-0 -> one-1", "one-2", "one-1 -> one-2", "one-0 -> one-2",
    ]  # fmt: skip


def test_the_source_is_a_digraph_in_dot() -> None:
    @flow
    def body() -> None:
        one(one())

    assert graph_of(body).source == 'digraph {\n\t"one-0"\n\t"one-1"\n\t"one-0" -> "one-1"\n}\n'


def test_a_flow_without_tasks_is_an_empty_graph() -> None:
    assert drawn(lambda: None) == []


def test_runs_are_counted_by_the_name_of_their_task() -> None:
    def body() -> None:
        a = one.with_options(name="load")()
        one.with_options(name="save")(a)
        one.with_options(name="load")(a)

    assert drawn(body) == ["load-0", "save-0", "load-0 -> save-0", "load-1", "load-0 -> load-1"]


def test_names_are_quoted_for_dot() -> None:
    odd = one.with_options(name='a:b "c" \\n <d>')
    graph = graph_of(flow(lambda: odd(odd())))
    node = r'"a:b \"c\" \\n <d>-'
    assert graph.source == f'digraph {{\n\t{node}0"\n\t{node}1"\n\t{node}0" -> {node}1"\n}}\n'


def test_coroutine_functions() -> None:
    async def body() -> None:
        first = await aone()
        await asyncio.gather(aone(first), aone(one(first)))

    found = drawn(body)
    assert arrows(found) == ["aone-0 -> one-0", "aone-0 -> aone-1", "one-0 -> aone-2"]


async def test_a_coroutine_draws_on_its_own_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @flow
    async def body() -> None:
        loops.append(asyncio.get_running_loop())
        await aone()

    assert lines_of(await agraph_of(body)) == ["aone-0"]
    assert loops == [asyncio.get_running_loop()]


def test_futures_of_submit() -> None:
    def body() -> None:
        first = one.submit()
        second = aone.submit(first)
        one(second)

    assert arrows(drawn(body)) == ["one-0 -> aone-0", "aone-0 -> one-1"]


def test_what_is_only_waited_for_is_a_dashed_arrow() -> None:
    def body() -> None:
        first, second = one.submit(), one.submit()
        one(first, wait_for=[first, second])
        one.submit(wait_for=second)
        one.map([1], wait_for=[second])

    assert arrows(drawn(body)) == [
        "one-0 -> one-2",
        "one-1 -> one-2 [style=dashed]",
        "one-1 -> one-3 [style=dashed]",
        "one-1 -> one-4 [style=dashed]",
    ]


@dataclass
class Box:
    content: Any


def test_arguments_are_looked_into_as_a_run_does() -> None:
    def body() -> None:
        a, b, c, d, e = one(), one(), one(), one.submit(), several()
        one([a, {"k": (b,)}, {c}], Box(d))
        one(allow_failure(d), unmapped(e))
        one(quote(a))
        one([a, a])

    assert arrows(drawn(body)) == [
        "one-0 -> one-4", "one-1 -> one-4", "one-2 -> one-4", "one-3 -> one-4",
        "one-3 -> one-5", "several-0 -> one-5", "one-0 -> one-7",
    ]  # fmt: skip


def test_arguments_that_hold_themselves_are_looked_into_once() -> None:
    def body() -> None:
        ring: list[Any] = [one()]
        ring += [ring, ring]
        one(ring)

    assert arrows(drawn(body)) == ["one-0 -> one-1"]


def test_values_that_have_nothing_to_do_with_it_are_no_arrows() -> None:
    known = one.with_options(viz_return_value="known")

    def body() -> None:
        known(known)
        one("known")
        one(10)
        one([10, 20, 30])

    assert arrows(drawn(body)) == []


def test_a_subflow_is_one_node() -> None:
    @flow(name="inner")
    def inner(x: Any) -> None:
        raise AssertionError("a flow runs while another is drawn")

    @flow(name="ainner")
    async def ainner(x: Any) -> None:
        raise AssertionError("a flow runs while another is drawn")

    async def body() -> None:
        one(await ainner(inner(one())))

    assert arrows(drawn(body)) == ["one-0 -> inner-0", "inner-0 -> ainner-0", "ainner-0 -> one-1"]


def test_methods() -> None:
    class Job:
        factor = 2

        @task
        def step(self, x: Any) -> None:
            raise AssertionError

        @flow
        def all(self, n: int) -> None:
            assert self.factor == 2
            self.step(self.step.submit(n))

    job = Job()
    assert lines_of(graph_of(job.all, 1)) == ["step-0", "step-1", "step-0 -> step-1"]


def test_generator_flows_are_drawn_to_their_end() -> None:
    def body() -> Iterator[Any]:
        first = one()
        yield first
        yield one(first)

    async def abody() -> AsyncIterator[Any]:
        yield await aone()
        one()

    assert drawn(body) == ["one-0", "one-1", "one-0 -> one-1"]
    assert drawn(abody) == ["aone-0", "one-0"]


def test_generator_tasks() -> None:
    @task
    def unknown() -> Iterator[int]:
        yield 1

    @task(viz_return_value=["ab", "cd"])
    async def known() -> AsyncIterator[str]:
        yield ""

    async def body() -> None:
        for item in unknown():
            one(item)
        async for text in known():
            one(text)
        one(unknown())
        one.map(unknown.submit())

    assert arrows(drawn(body)) == [
        "unknown-0 -> one-0", "known-0 -> one-1", "known-0 -> one-2",
        "unknown-1 -> one-3", "unknown-2 -> one-4",
    ]  # fmt: skip


def test_a_task_in_the_flow_s_own_thread_pool() -> None:
    async def body() -> None:
        await asyncio.to_thread(one)

    assert drawn(body) == ["one-0"]


# -- mapping -----------------------------------------------------------------------------------------------


def test_a_mapping_is_a_node_for_each_item() -> None:
    def body() -> None:
        first = one.map([1, 2, 3], y=unmapped(several()))
        second = one.map(first)
        one(second)

    found = drawn(body)
    assert sum("->" not in line for line in found) == 8
    assert arrows(found) == [
        *(f"several-0 -> one-{n}" for n in range(3)),
        *(f"one-{n} -> one-{n + 3}" for n in range(3)),
        *(f"one-{n} -> one-6" for n in (3, 4, 5)),
    ]


@pytest.mark.parametrize("begin", [several, several.submit, lambda: several(return_state=True)])
def test_a_mapping_over_a_result_that_is_known(begin: Callable[[], Any]) -> None:
    def body() -> None:
        one.map(begin())
        one.map(allow_failure(begin()), [1, 2, 3])

    found = arrows(drawn(body))
    assert found == [
        *(f"several-0 -> one-{n}" for n in range(3)),
        *(f"several-1 -> one-{n + 3}" for n in range(3)),
    ]


def test_a_mapping_over_a_result_that_is_not_known_is_one_node() -> None:
    def body() -> None:
        one.map(one())
        one.map(one.submit(), [1, 2])

    found = drawn(body)
    assert found[:3] == ["one-0", "one-1", "one-0 -> one-1"]
    assert found[3:] == ["one-2", "one-3", "one-2 -> one-3", "one-4", "one-2 -> one-4"]


def test_mistakes_in_a_mapping_are_those_of_a_run() -> None:
    with pytest.raises(MappingMissingIterable):
        drawn(lambda: one.map(5))
    with pytest.raises(MappingLengthMismatch):
        drawn(lambda: one.map([1], [1, 2]))


def test_a_mapping_with_return_state() -> None:
    def body() -> None:
        states = one.map([1, 2], return_state=True)
        assert all(state.is_completed() for state in states)
        one(states)

    assert arrows(drawn(body)) == ["one-0 -> one-2", "one-1 -> one-2"]


# -- what the code of the flow gets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [7, 0, "", "text", 1000, 1.5, [], [1], {"a": 1}, (1, 2), True, b"xy", {3}, len]
)
def test_a_task_gives_its_viz_return_value(value: Any) -> None:
    known = one.with_options(viz_return_value=value)
    seen: list[Any] = []

    def body() -> None:
        seen.extend([known(), known.submit().result(), known(return_state=True).result()])

    drawn(body)
    assert [(type(item), item) for item in seen] == [(type(value), value)] * 3


@pytest.mark.parametrize(
    "value", [[1], [], {"a": 1}, {1}, "text", b"xy", 1000, 2.5, (1, 2), SimpleNamespace()]
)
def test_a_viz_return_value_is_known_again(value: Any) -> None:
    known = one.with_options(name="known", viz_return_value=value)
    assert arrows(drawn(lambda: one(known()))) == ["known-0 -> one-0"]


def test_equal_values_of_two_runs_are_told_apart() -> None:
    known = one.with_options(name="known", viz_return_value=[1, 2])

    def body() -> None:
        a, b = known(), known()
        one(a)
        one(b)
        a.append(3)
        assert known() == [1, 2]

    assert arrows(drawn(body)) == ["known-0 -> one-0", "known-1 -> one-1"]


def test_items_of_a_viz_return_value_are_known_again() -> None:
    known = one.with_options(name="known", viz_return_value=("first.csv", "second.csv"))

    def body() -> None:
        for path in known():
            one(path)

    assert arrows(drawn(body)) == ["known-0 -> one-0", "known-0 -> one-1"]


def test_futures_and_states_have_ended() -> None:
    def body() -> None:
        future = one.submit()
        assert future.done
        assert future.state.is_completed()
        assert repr(future.result()) == "<result of one-0>"
        assert wait([future]).not_done == set()
        assert list(as_completed([future])) == [future]
        state = one.submit(future, return_state=True)
        assert isinstance(state, State)
        one(state)
        one(one(return_state=True))

    assert arrows(drawn(body)) == ["one-0 -> one-1", "one-1 -> one-2", "one-3 -> one-4"]


def test_the_flow_s_code_is_inside_a_run(caplog: pytest.LogCaptureFixture) -> None:
    def body() -> None:
        get_run_logger().warning("about to start")
        with tags("a"):
            assert tracker() is not None
            one()

    assert tracker() is None
    assert drawn(body) == ["one-0"]
    assert "about to start" in caplog.text


def test_options_of_the_flow_have_no_effect() -> None:
    calls: list[Any] = []

    @flow(retries=3, on_running=[lambda *given: calls.append(given)], on_failure=[lambda *g: calls.append(g)])
    def body(n: int) -> None:
        calls.append(n)
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        graph_of(body, "7")
    assert calls == ["7"]


# -- what can't be drawn -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "send",
    [
        lambda: one.delay(1),
        lambda: one.apply_async([1]),
        lambda: one.delay(one()),
        lambda: one.apply_async(kwargs={"x": one.submit()}),
        lambda: one.map([1], deferred=True),
        lambda: asyncio.run(one.adelay()),
        lambda: asyncio.run(aone.aapply_async()),
    ],
)
def test_runs_on_workers_can_t_be_drawn(
    send: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_LITE_HOME", str(tmp_path / "home"))
    with pytest.raises(VisualizationUnsupportedError, match="sends a run to a worker"):
        drawn(send)
    assert not (tmp_path / "home").exists()  # no client, and no broker, has been started


def test_a_caught_refusal_leaves_no_node() -> None:
    def body() -> None:
        with pytest.raises(VisualizationUnsupportedError):
            one.delay()
        one()

    assert drawn(body) == ["one-0"]


def test_arguments_that_do_not_fit() -> None:
    @flow
    def body(n: int) -> None:
        one(1, 2, 3)

    with pytest.raises(ParameterBindError, match="missing"):
        graph_of(body)
    with pytest.raises(ParameterBindError, match="positional"):
        graph_of(body, 1)


def test_code_that_uses_a_placeholder_is_told_what_to_do() -> None:
    def body() -> int:
        return one() + 1

    with pytest.raises(TypeError) as caught:
        drawn(body)
    assert "viz_return_value" in caught.value.__notes__[0]
    assert "(one)" in caught.value.__notes__[0]


def test_an_error_that_has_nothing_to_do_with_placeholders_is_left_alone() -> None:
    def body() -> None:
        several()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        drawn(body)
    assert not hasattr(caught.value, "__notes__")


# -- what happens around it --------------------------------------------------------------------------------


def test_afterwards_tasks_run_again() -> None:
    @task
    def real() -> int:
        return 5

    with pytest.raises(ValueError, match="no"):
        drawn(lambda: [real(), int("no number" if tracker() is None else "no")])
    assert real() == 5
    assert real.submit().result() == 5
    close_threads()
    assert task_calls._call.__module__ == "prefect_lite.direct"


def test_a_drawing_inside_a_run_and_inside_a_drawing() -> None:
    found: list[list[str]] = []

    @task
    def real() -> int:
        return 5

    def inner() -> None:
        one()
        found.append(drawn(aone.submit))
        one()

    @flow
    def outer() -> int:
        found.append(drawn(inner))
        return real()

    assert outer() == 5
    assert found == [["aone-0"], ["one-0", "one-1"]]


async def test_drawings_at_the_same_time_do_not_mix() -> None:
    @flow
    async def body(times: int) -> None:
        for _ in range(times):
            await aone()
            await asyncio.sleep(0)

    graphs = await asyncio.gather(*(agraph_of(body, times) for times in (1, 2, 3)))
    assert [len(lines_of(graph)) for graph in graphs] == [1, 2, 3]


def test_whoever_draws_nothing_loads_nothing_of_it() -> None:
    script = (
        "import sys\n"
        "from prefect_lite import flow, task\n"
        "@task\n"
        "def real(x): return x\n"
        "@flow\n"
        "def body(): return real.submit(real(1)).result() + sum(real.map([1, 2]).result())\n"
        "assert body() == 4\n"
        "parts = 'draw', 'visual', 'graphviz'\n"
        "print([name for name in sys.modules if any(part in name for part in parts)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_other_threads_run_their_tasks_meanwhile() -> None:
    values: list[int] = []

    @task
    def real() -> int:
        return 5

    inside, done = threading.Event(), threading.Event()

    def elsewhere() -> None:
        inside.wait(30)
        values.append(real())
        done.set()

    def body() -> None:
        inside.set()
        assert done.wait(30)
        one()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        assert drawn(body) == ["one-0"]
    finally:
        inside.set()
        thread.join()
    assert values == [5]


# -- the picture -------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of the PATH, so that no real program is found; and an empty working directory."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def make_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{script}\n")
    path.chmod(0o755)


ECHO = "sys.stdout.write(' '.join(sys.argv[1:]) + sys.stdin.read())"
"""A ``dot`` whose picture tells what it was asked for."""


@flow(name="my flow")
def simple() -> None:
    one(one())


def test_the_picture_is_a_file_in_the_working_directory(programs: Path) -> None:
    make_program(programs, "dot", ECHO)
    with pytest.warns(UserWarning, match="executes its function") as warned:
        assert simple.visualize() is None
    assert warned[0].filename == __file__
    assert [path.name for path in Path.cwd().iterdir()] == ["my flow.png"]
    written = Path("my flow.png").read_text()
    assert "-Tpng" in written
    assert '"one-0" -> "one-1"' in written


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_a_real_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    odd = one.with_options(name='a:b "c" \\n <d>')
    flow(name="odd names")(lambda: odd(odd(), wait_for=[one()])).visualize()
    assert Path("odd names.png").read_bytes().startswith(PNG)


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
async def test_on_an_event_loop_it_is_awaited(programs: Path) -> None:
    make_program(programs, "dot", ECHO)

    @flow(name="async")
    async def body() -> None:
        await aone()

    await body.visualize()
    assert '"aone-0"' in await asyncio.to_thread(Path("async.png").read_text)


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_the_name_of_the_file_stays_in_the_directory(programs: Path) -> None:
    make_program(programs, "dot", ECHO)
    simple.with_options(name="..\\up\naway").visualize()
    assert [path.name for path in Path.cwd().iterdir()] == ["..-up-away.png"]


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_another_file_of_the_flow_s_name_is_left_alone(programs: Path) -> None:
    make_program(programs, "dot", ECHO)
    Path("my flow").write_text("mine")
    simple.visualize()
    assert Path("my flow").read_text() == "mine"


def test_without_dot_nothing_is_executed(programs: Path) -> None:
    @flow
    def body() -> None:
        raise AssertionError

    with pytest.raises(GraphvizExecutableNotFoundError, match=re.escape("`dot` is not on the PATH")):
        body.visualize()
    assert lines_of(graph_of(simple)) == ["one-0", "one-1", "one-0 -> one-1"]  # which needs no program


def test_without_the_package_nothing_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)  # type: ignore[arg-type]  # an import fails then
    with pytest.raises(GraphvizImportError, match=re.escape('pip install "prefect-lite[viz]"')):
        simple.visualize()
    with pytest.raises(GraphvizImportError):
        graph_of(simple)


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_a_dot_that_fails(programs: Path) -> None:
    make_program(programs, "dot", "sys.exit('Format: png not recognized')")
    with pytest.raises(FlowVisualizationError, match=r"'my flow': Format: png not recognized"):
        simple.visualize()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_a_picture_that_can_t_be_written(programs: Path) -> None:
    make_program(programs, "dot", ECHO)
    Path("my flow.png").mkdir()
    with pytest.raises(FlowVisualizationError, match=r"can't be written to .*my flow.png: Is a directory"):
        simple.visualize()


@pytest.mark.skipif(sys.platform != "linux", reason="xdg-open is Linux's")
@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_a_viewer_opens_where_there_is_a_screen(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(programs, "dot", ECHO)
    shown = programs / "shown"
    make_program(programs, "xdg-open", f"Path({str(shown)!r}).write_text(sys.argv[1])")
    monkeypatch.setenv("DISPLAY", ":0")
    simple.visualize()
    expected = os.path.abspath("my flow.png")
    wait_until(lambda: shown.exists() and shown.read_text() == expected, 30.0, "the viewer")
    shown.unlink()
    monkeypatch.delenv("DISPLAY")
    before = threading.active_count()
    simple.visualize()
    assert threading.active_count() <= before  # nobody was started to wait for a viewer
    assert not shown.exists()


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_a_notebook_shows_the_graph_itself(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(programs, "dot", ECHO)
    shown: list[Any] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = object  # type: ignore[attr-defined]
    display.display = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    simple.visualize()
    assert [lines_of(graph) for graph in shown] == [["one-0", "one-1", "one-0 -> one-1"]]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.filterwarnings("ignore:Drawing flow:UserWarning")
def test_the_guide_does_what_it_says(
    programs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(programs, "dot", ECHO)
    text = (Path(__file__).parents[3] / "docs" / "visualization.md").read_text()
    guide = ModuleType("guide_to_visualization")
    monkeypatch.setitem(sys.modules, guide.__name__, guide)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/visualization.md", "exec"), guide.__dict__)
    assert Path("nightly import.png").exists()
    shown = re.search(r"^```dot\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert capsys.readouterr().out.strip() == shown[1].strip()
    assert lines_of(graph_of(guide.as_needed)) == ["count-0", "notify-0"]
