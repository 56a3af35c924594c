"""The comparison with Prefect: what counts as different, what is kept, and that programs can't stop it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "compare_with_prefect"
PAGE = Path(__file__).parents[1] / "docs" / "prefect-compat.md"
sys.path.append(str(TOOL))

from differences import deliberate, differences, reason_of  # noqa: E402
from outcomes import Kept, outcomes, version_of  # noqa: E402
from sources import all_programs, chosen, translate  # noqa: E402
from tables import table  # noqa: E402

ERROR = {"raises": ["ValueError", "Exception"], "text": "boom"}
STATE = {"state": "FAILED Failed", "message": "boom"}


@pytest.mark.parametrize(
    ("prefect", "lite", "found"),
    [
        ([1, {"a": 2}], [1, {"a": 2}], []),
        ([1, {"a": 2}], [1, {"a": 3}], [("p[1][a]", False)]),
        ([1], [1, 2], [("p", False)]),
        (ERROR, ERROR | {"raises": ["MoreExact", "ValueError", "Exception"]}, []),
        (ERROR, ERROR | {"text": "other"}, [("p", True)]),
        (ERROR, ERROR | {"raises": ["TypeError", "Exception"]}, [("p", False)]),
        (ERROR | {"raises": ["_Private", "ValueError"]}, ERROR, []),
        (ERROR | {"raises": ["ValidationError", "ValueError"]}, ERROR, []),
        (ERROR, 5, [("p", False)]),
        (STATE, STATE | {"message": "other"}, [("p", True)]),
        (STATE, STATE | {"state": "FAILED TimedOut"}, [("p", False)]),
    ],
)
def test_what_differs(prefect: Any, lite: Any, found: list[tuple[str, bool]]) -> None:
    assert [(each.place, each.only_words) for each in differences("p", prefect, lite)] == found


def test_a_reason_holds_for_what_is_inside() -> None:
    (difference,) = differences("group.name", [0, {"a": 1}], [0, {"a": 2}])
    assert reason_of(difference, {"group.name[1]": "so"}) == "group.name[1]"
    assert reason_of(difference, {"group.name[0]": "so", "group.nam": "so"}) is None


def test_every_reason_is_for_a_program() -> None:
    assert {place.partition("[")[0] for place in deliberate()} <= all_programs().keys()


def test_a_table_counts_programs_once() -> None:
    lines = table("A and B", ["a.one", "b.one", "b.two", "b.six"], {"b.one"}, {"b.two"}).splitlines()
    assert lines[0].startswith("A and B, 20")
    assert lines[-3:] == ["| a | 1 | 1 | 0 | 0 |", "| b | 3 | 1 | 1 | 1 |", "| all | 4 | 2 | 1 | 1 |"]


def test_the_page_has_a_table_of_all_programs() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| (\d+) \| \d+ \| \d+ \| \d+ \|$", PAGE.read_text(), re.MULTILINE))
    counts = Counter(name.partition(".")[0] for name in all_programs())
    assert {group: int(count) for group, count in rows.items()} == counts | {"all": counts.total()}


def test_names_stand_for_programs_and_groups() -> None:
    programs = {"a.one": "", "a.two": "", "b.one": ""}
    assert chosen([], programs) == ["a.one", "a.two", "b.one"]
    assert chosen(["b", "a.two"], programs) == ["a.two", "b.one"]
    with pytest.raises(LookupError, match="groups: a, b"):
        chosen(["c"], programs)


def test_what_a_changed_program_saw_is_not_used(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new" / "kept.jsonl")
    kept.add("a.one", "digest", [1])
    kept.save()
    again = Kept(kept.path)
    assert again.get("a.one", "digest")["saw"] == [1]
    assert again.get("a.one", "other") is None


def test_a_program_that_ends_its_process_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "odd_programs.py").write_text(
        "import os\ndef ends():\n    os._exit(0)\ndef prints():\n    print(1)\n    return {2}\n"
    )
    seen = outcomes(sys.executable, tmp_path, ["odd.ends", "odd.prints", "odd.missing"], tmp_path)
    saw = dict(seen)
    assert saw["odd.ends"] == "ends the process with 0"
    assert saw["odd.prints"] == [2]
    assert saw["odd.missing"]["raises"][0] == "AttributeError"


def test_a_program_runs_here(tmp_path: Path) -> None:
    translate(tmp_path / "translated")
    home = {"PREFECT_LITE_HOME": str(tmp_path / "home"), "PREFECT_LITE_RUNTIME_DIR": str(tmp_path / "run")}
    seen = dict(outcomes(sys.executable, tmp_path / "translated", ["call.direct_failure"], tmp_path, **home))
    assert seen["call.direct_failure"]["raises"][0] == "ValueError"


def test_an_interpreter_without_the_package() -> None:
    with pytest.raises(LookupError, match="has no package"):
        version_of(sys.executable, "no-such-package")
    with pytest.raises(LookupError, match="can't be started"):
        version_of(str(TOOL / "missing"), "prefect")
