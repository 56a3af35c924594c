"""Run ids: valid, unique, in the right shard, and different after a fork."""

from __future__ import annotations

import os
from uuid import UUID

import pytest

from prefect_lite.run_ids import new_run_id, parse_run_id, run_id_for


def test_they_are_random_uuids() -> None:
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    for run_id in ids:
        assert UUID(run_id).version == 4
        assert UUID(run_id).hex == run_id
        assert UUID(run_id).variant == UUID(int=1 << 63).variant


def test_an_idempotency_key_fixes_the_shard_and_nothing_else() -> None:
    one, two = run_id_for("t", "k"), run_id_for("t", "k")
    assert one[-3:] == two[-3:]
    assert one != two
    assert len({run_id_for("t", str(n))[-3:] for n in range(100)}) > 50
    assert UUID(one).version == 4


def test_a_child_makes_its_own() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, new_run_id().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    theirs = os.read(reader, 64).decode()
    os.close(reader)
    assert len(theirs) == 32
    assert theirs != new_run_id()


@pytest.mark.parametrize("text", ["0123456789abcdef0123456789abcdef", "01234567-89AB-cdef-0123-456789abcdef"])
def test_uuids_in_any_form_are_read(text: str) -> None:
    assert parse_run_id(text) == parse_run_id(UUID(text)) == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("text", ["", "x" * 32, "0" * 31, 3])
def test_others_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a UUID"):
        parse_run_id(text)  # type: ignore[arg-type]
