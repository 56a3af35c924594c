"""The table of verbs and roles is complete."""

from __future__ import annotations

from prefect_lite.protocol.messages import VERBS, Finish, Renew, Run, Submit
from prefect_lite.protocol.roles import (
    ADMIN,
    CLIENT,
    PERMISSIONS,
    ROLES,
    WORKER,
    receivable_by_broker,
    receivable_by_peer,
)


def test_every_verb_has_a_row_that_lets_somebody_use_it() -> None:
    assert PERMISSIONS.keys() == VERBS.keys()
    for verb, row in PERMISSIONS.items():
        assert row.to_broker | row.from_broker, verb
        assert row.to_broker | row.from_broker <= ROLES, verb


def test_admin_may_do_all_a_client_may() -> None:
    assert receivable_by_broker(CLIENT) <= receivable_by_broker(ADMIN)
    assert receivable_by_peer(CLIENT) <= receivable_by_peer(ADMIN)


def test_clients_execute_nothing_and_workers_submit_nothing() -> None:
    assert not {Finish, Run} & (receivable_by_broker(CLIENT) | receivable_by_peer(CLIENT))
    assert Submit not in receivable_by_broker(WORKER)
    assert Renew in receivable_by_broker(CLIENT)
