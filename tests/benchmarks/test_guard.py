"""The guard: nothing costs more than its baseline says, and what gets slower is named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.guard.baseline import LIBRARIES, Baseline, compare, failures
from benchmarks.guard.child import ROOT, MeasuringFailed, environment, measured
from benchmarks.guard.figures import Figures

SLOWER_LOOP = """
from prefect_lite.protocol import codec
decode = codec.decode_frame
def slower(data, refused=None):
    messages = decode(data, refused)
    for message in messages:
        len(message) + len(message)
        isinstance(message, tuple) or isinstance(message, list)
    return messages
codec.decode_frame = slower
"""

ENCODES_TWICE = """
from prefect_lite.protocol import codec, session
send = session.Session.send
def twice(self, message):
    codec.encode_frame([message])
    send(self, message)
session.Session.send = twice
"""

SLOWER_SUBMIT = """
from prefect_lite.client import runtime
submit = runtime.Runtime.submit
def slower(self, *args, **kwargs):
    for number in range(300):
        abs(number)
    return submit(self, *args, **kwargs)
runtime.Runtime.submit = slower
"""


@pytest.fixture(scope="module")
def quick() -> Figures:
    """The figures of this tree that need no store."""
    return measured(["protocol", "envelope"])


def lost(before: Figures, after: Figures) -> set[str]:
    """The figures that the guard names."""
    changes = compare({name: figure.value for name, figure in before.items()}, after)
    return {line.rpartition(": ")[0] for line in failures(changes)}


def test_nothing_costs_more_than_its_baseline() -> None:
    baseline = Baseline()
    if not baseline.values:
        pytest.skip(f"there is no baseline for Python {baseline.python}; make guard-update makes one")
    lines = failures(compare(baseline.values, measured()))
    assert not lines, "\n".join(["see docs/performance/guard.md", *lines, *baseline.other_libraries()])


def test_two_measurements_agree(quick: Figures) -> None:
    again = measured(["protocol", "envelope"])
    assert again
    for name, figure in again.items():
        assert figure.value == pytest.approx(quick[name].value, rel=0.01), name


def test_a_slower_loop_is_named(quick: Figures) -> None:
    found = lost(quick, measured(["protocol"], plant=SLOWER_LOOP))
    assert "protocol: decode STATE x50, instructions" in found
    assert not any("encode" in name for name in found)


def test_packing_twice_is_named(quick: Figures) -> None:
    found = lost(quick, measured(["protocol"], plant=ENCODES_TWICE))
    assert {"protocol: encode SUBMIT x1, msgpack calls", "protocol: encode SUBMIT x50, instructions"} <= found
    assert not any("decode" in name for name in found)


def test_more_work_in_the_caller_and_in_a_script_is_named(tmp_path: Path) -> None:
    package = tmp_path / "prefect_lite_broker"
    shutil.copytree(ROOT / "broker" / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
    script = package / "scripts" / "finish.lua"
    # One command more for each run, in the loop over the runs.
    text, loops = re.subn(r"(?m)^(for .* do)$", r"\1\n  redis.call('TIME')", script.read_text(), count=1)
    assert loops == 1, "finish.lua has no loop any more: plant the command elsewhere"
    script.write_text(text)
    groups = ["client", "broker"]
    found = lost(measured(groups), measured(groups, plant=SLOWER_SUBMIT, first=[tmp_path]))
    assert {"client: delay, instructions", "broker: finish x50, Redis commands"} <= found
    assert {name.partition(",")[0] for name in found} == {"client: delay", "broker: finish x50"}


def test_a_seam_that_is_gone_is_told_in_a_sentence() -> None:
    plant = "from prefect_lite import envelope\ndel envelope.seal_call"
    with pytest.raises(MeasuringFailed, match=r"The guard measures seal_call of prefect_lite\.envelope"):
        measured(["envelope"], plant=plant)


# -- the commands -----------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.guard", *arguments],
        env=environment([]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def file(quick: Figures, tmp_path: Path) -> Path:
    """A baseline of this moment."""
    path = tmp_path / "baseline.json"
    Baseline(path).update(quick, "first")
    return path


def test_check_fails_and_names_the_figure(file: Path) -> None:
    content = json.loads(file.read_text())
    figures = content[Baseline().python]["figures"]
    figures["envelope: seal a call, instructions"]["value"] /= 1.2
    figures["envelope: open a call, instructions"]["value"] *= 1.3
    file.write_text(json.dumps(content))
    result = run("check", "--group", "envelope", "--baseline", str(file))
    assert result.returncode == 1
    assert "envelope: seal a call, instructions: " in result.stdout
    assert "(+20%)" in result.stdout
    assert "gain: update the baseline" in result.stdout
    assert "protocol" not in result.stdout


def test_check_passes_without_a_baseline_for_this_python(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text('{"2.7": {"figures": {}}}')
    result = run("check", "--baseline", str(file))
    assert result.returncode == 0
    assert f"There is no baseline for Python {Baseline().python}" in result.stdout


def test_update_wants_a_reason(file: Path) -> None:
    before = file.read_text()
    result = run("update", "--reason", " ", "--baseline", str(file))
    assert result.returncode == 2
    assert "say it" in result.stdout
    assert file.read_text() == before


def test_an_update_gives_its_reason_to_what_has_changed(quick: Figures, file: Path) -> None:
    changed, same = list(quick)[:2]
    figure = quick[changed]
    changes = Baseline(file).update({**quick, changed: figure._replace(value=figure.value * 2)}, "second")
    stored = Baseline(file)
    assert [change.name for change in changes] == [changed]
    assert stored.reasons[changed] == "second"
    assert stored.reasons[same] == "first"
    assert stored.values[changed] == figure.value * 2


def test_a_figure_that_is_not_measured_any_more_fails(quick: Figures) -> None:
    name = next(iter(quick))
    rest = {each: figure for each, figure in quick.items() if each != name}
    assert lost(quick, rest) == {name}


def test_other_versions_of_the_libraries_are_told(file: Path) -> None:
    content = json.loads(file.read_text())
    content[Baseline().python]["libraries"][LIBRARIES[0]] = "0.1"
    file.write_text(json.dumps(content))
    [told] = Baseline(file).other_libraries()
    assert told.startswith(LIBRARIES[0])
    assert "0.1" in told
