"""Pictures of flows: ``flow.visualize()``, and the same graph as an object of the package graphviz.

What the graph consists of is noted by ``drawing.py``; here it becomes a picture. The package graphviz (extra
``viz``) and its program ``dot`` are needed for that, so nothing else imports this module.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect_lite import thread_starts
from prefect_lite.drawing import Drawing
from prefect_lite.drawn_flows import DrawnFlowContext, drawn, tracker
from prefect_lite.exceptions import (
    FlowVisualizationError,
    GraphvizExecutableNotFoundError,
    GraphvizImportError,
    PrefectException,
)
from prefect_lite.generators import whole
from prefect_lite.thread_or_loop import Either, Waits, in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.flows import Flow

__all__ = ["Drawing", "agraph_of", "graph_of", "tracker", "visualize"]

_NOT_IN_FILE_NAMES: Final = re.compile(r"[/\\\x00-\x1f]")
_MAX_FILE_NAME: Final = 200

logger = logging.getLogger("prefect_lite.visualization")


def graph_of(flow: Flow[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What ``flow.visualize`` draws, as a ``graphviz.Digraph``: to look at its source, or to draw otherwise.

    The program ``dot`` is not needed.

    Args:
        flow: Its function is executed; of a coroutine function in an event loop of its own.
        *args: Of the function. They are neither checked against annotations nor converted.
        **kwargs: The same by name.

    Raises:
        GraphvizImportError: The package graphviz is not installed.
        ParameterBindError: The arguments don't fit.
        VisualizationUnsupportedError: The flow sends a run to a worker.
        Exception: What the function raises.
    """
    return in_thread(_graph(flow, args, kwargs))


async def agraph_of(flow: Flow[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """``graph_of`` for coroutines; the function is executed in this event loop."""
    return await on_loop(_graph(flow, args, kwargs))


def visualize(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """See ``Flow.visualize``."""
    _graphviz()
    if shutil.which("dot") is None:  # asked first: the flow's own code may take its time
        raise GraphvizExecutableNotFoundError(_NO_DOT)
    warnings.warn(
        f"Drawing flow {flow.name!r} executes its function: whatever that does outside of tasks and other "
        f"flows is done.",
        UserWarning,
        stacklevel=3,
    )
    waits = _visualizing(flow, args, kwargs)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return in_thread(waits)
    return on_loop(waits)


def _visualizing(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Waits[None]:
    graph = yield from _graph(flow, args, kwargs)
    if _is_notebook():
        import_module("IPython.display").display(graph)
        return

    def show() -> None:
        path = _write(graph, flow.name)
        logger.info("Flow %r is drawn in %s.", flow.name, path)
        _open_viewer(path)

    yield Either(show, lambda: asyncio.to_thread(show))


_NO_DOT: Final = (
    "The program `dot` is not on the PATH: it makes the picture, the Python package graphviz alone does not. "
    "Install Graphviz (`apt install graphviz`, `brew install graphviz`, or graphviz.org/download). "
    "Without it, prefect_lite.visualization.graph_of(flow).source gives the graph as text."
)


def _graph(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Waits[Any]:
    graphviz = _graphviz()
    drawing = yield from _drawing(flow, args, kwargs)
    return graphviz.Digraph(body=_lines(drawing))


def _graphviz() -> Any:
    try:
        return import_module("graphviz")
    except ImportError as exc:
        raise GraphvizImportError(
            "Flows are drawn with the Python package graphviz, which is not installed: "
            'pip install "prefect-lite[viz]".'
        ) from exc


# -- from the flow to the graph ---------------------------------------------------------------------------


def _drawing(flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Waits[Drawing]:
    """Execute the function of a flow, without its tasks."""
    args = (*flow.bound_to, *args)
    flow.binder.check(args, kwargs)
    drawing = Drawing()
    fn: Any = whole(flow.fn, flow.isasync) if flow.isgenerator else flow.fn
    with drawn(DrawnFlowContext(flow, args, kwargs, drawing)):
        try:
            value = fn(*args, **kwargs)
            if flow.isasync:
                yield value
        except Exception as exc:
            if drawing.guessed and not isinstance(exc, PrefectException):
                exc.add_note(_hint(flow, drawing))
            raise
    return drawing


def _hint(flow: Flow[..., Any], drawing: Drawing) -> str:
    tasks = ", ".join(drawing.guessed)
    return (
        f"This was raised while flow {flow.name!r} was drawn. Its tasks don't run then: a placeholder stands "
        f"for what each gives. If the flow uses the result of one of these ({tasks}), say what it looks "
        f"like: @task(viz_return_value=...)."
    )


def _lines(drawing: Drawing) -> list[str]:
    """The graph in the language of ``dot``: runs, each followed by its arrows."""
    lines: list[str] = []
    for run in drawing.runs:
        name = _quoted(run.name)
        lines.append(f"\t{name}\n")
        lines.extend(f"\t{_quoted(source)} -> {name}\n" for source in run.upstream)
        lines.extend(f"\t{_quoted(source)} -> {name} [style=dashed]\n" for source in run.before)
    return lines


def _quoted(name: str) -> str:
    # Not left to the package: that takes what is behind a colon for a place on the node.
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


# -- from the graph to the picture ------------------------------------------------------------------------


def _write(graph: Any, flow_name: str) -> Path:
    """Make the picture, in the working directory. A file of that name is replaced.

    Raises:
        FlowVisualizationError: ``dot`` fails, or the file can't be written.
    """
    path = Path.cwd() / f"{_NOT_IN_FILE_NAMES.sub('-', flow_name)[:_MAX_FILE_NAME]}.png"
    try:
        # Not by the package's `render`: that also writes a file without suffix, and removes it again.
        picture: bytes = graph.pipe(format="png")
    except (subprocess.SubprocessError, OSError, RuntimeError) as exc:
        said = getattr(exc, "stderr", None) or b""
        detail = said.decode(errors="replace").strip() if isinstance(said, bytes) else str(said).strip()
        raise FlowVisualizationError(f"`dot` can't draw flow {flow_name!r}: {detail or exc}") from exc
    try:
        path.write_bytes(picture)
    except OSError as exc:
        raise FlowVisualizationError(
            f"The picture of flow {flow_name!r} can't be written to {path}: {exc.strerror or exc}. "
            f"Call visualize() in a directory where files can be written."
        ) from exc
    return path


def _is_notebook() -> bool:
    """Whether this is IPython, which shows the graph itself."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _open_viewer(path: Path) -> None:
    """Show the picture in the desktop's program for that, where there is one."""
    if sys.platform == "win32":
        os.startfile(path)
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    # Without a screen the latter would open a text browser in this terminal.
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    command = shutil.which(opener)
    if not screen or command is None:
        return
    quiet = subprocess.DEVNULL
    try:
        viewer = subprocess.Popen([command, str(path)], stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError as exc:
        logger.warning("%s is there, but %s can't be started to show it: %s", path, command, exc)
        return
    thread_starts.start(threading.Thread(target=viewer.wait, daemon=True))  # it would stay a zombie
