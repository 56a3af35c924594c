"""docs/protocol.md says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from prefect_lite_broker import sessions, verbs

from prefect_lite.protocol import codec, inbox, outbox
from prefect_lite.protocol import session as base
from prefect_lite.protocol.checks import MAX_DEPTH
from prefect_lite.protocol.messages import PROTOCOL_NAME, VERBS
from prefect_lite.protocol.roles import PERMISSIONS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
SOURCES = [
    *(ROOT / "prefect_lite/protocol").glob("*.py"),
    *(ROOT / "broker/prefect_lite_broker").glob("*.py"),
]
TELLERS = {"ProtocolError", "Error", "Refusal", "fail"}


def table(first: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    lines = iter(DOCUMENT.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    next(lines)
    rows: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        rows[cells[0].strip("`")] = cells[1:]
    return rows


def test_every_verb_has_its_row() -> None:
    assert [*table("verb")] == [*VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_fields_and_roles_are_those_of_the_code(verb: str) -> None:
    fields, to_broker, from_broker, meaning = table("verb")[verb]
    cls = VERBS[verb]
    assert fields.split(", ") == [
        f"`{name}`" + ("?" if name in cls._field_defaults else "") for name in cls._fields
    ]
    assert set(re.findall(r"\w+", to_broker)) == PERMISSIONS[verb].to_broker
    assert set(re.findall(r"\w+", from_broker)) == PERMISSIONS[verb].from_broker
    assert meaning


def codes_in(path: Path) -> set[str]:
    """Codes that a module puts into an error, a refusal or an answer."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if name in TELLERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(first.value)
        elif isinstance(node, ast.List) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
            # [code, sentence] of an ANSWER
            code = node.elts[0].value
            if isinstance(code, str) and re.fullmatch(r"[a-z]+_?[a-z_]+", code):
                found.add(code)
    return found


def test_every_code_is_described_and_no_other() -> None:
    codes = set[str]().union(*map(codes_in, SOURCES)) | {base.SILENT_CODE, "conflict", "full", "unsupported"}
    assert codes == set(table("code | in"))


def test_close_codes_and_limits_are_those_of_the_code() -> None:
    ours = {value for name, value in vars(sessions).items() if re.fullmatch(r"CLOSE_(?!SECONDS)\w+", name)}
    assert {str(code) for code in ours} <= set(table("code | meaning"))
    limits = {name: row[0] for name, row in table("limit").items()}
    assert [*limits.values()] == [
        f"{codec.MAX_FRAME >> 10} KiB",
        f"{codec.CHUNK_BYTES >> 10} KiB",
        f"{codec.MAX_ARRAY:,}",
        f"{codec.MAX_MAP:,}",
        str(MAX_DEPTH),
    ]
    assert PROTOCOL_NAME in DOCUMENT
    for said in (
        f"up to {outbox.INLINE_BYTES >> 10} KiB travels inside",
        f"At most {inbox.MAX_STREAMS} streams",
        f"when {sessions.MAX_WAITING_MESSAGES:,} messages or",
        f"{sessions.MAX_WAITING_BYTES >> 20} MiB besides",
        f"{verbs.MAX_QUERIES} questions are answered",
        f"more than {verbs.MAX_WATCHES:,} runs",
        f"more than {verbs.MAX_TASK_KEYS:,} task keys",
        f"more than {base.MAX_ERRORS} recoverable",
    ):
        assert said in DOCUMENT, said
