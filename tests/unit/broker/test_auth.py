"""Tokens and who may listen where."""

from __future__ import annotations

import pytest
from prefect_lite_broker.auth import Auth, check_exposure, is_loopback

from prefect_lite.exceptions import ConfigurationError

TOKENS = {"client": "c" * 20, "worker": "w" * 20, "admin": "a" * 20}


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("Bearer " + "c" * 20, {"client"}),
        ("bearer " + "w" * 20, {"worker"}),
        ("Bearer " + "a" * 20, {"admin", "client"}),
        ("Bearer " + "x" * 20, set()),
        ("Basic " + "c" * 20, set()),
        ("Bearer", set()),
        ("Bearer ", set()),
        ("", set()),
        ("Bearer \udcff\x00é", set()),
    ],
)
def test_roles_of_a_token(header: str, roles: set[str]) -> None:
    assert Auth(TOKENS).roles(header) == roles


def test_an_empty_token_opens_nothing() -> None:
    assert Auth({"client": "", "worker": "w" * 20, "admin": ""}).roles("Bearer ") == set()


def test_without_tokens_all_roles_are_open() -> None:
    assert Auth(None).roles("") == {"client", "worker", "admin"}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("", False), ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_other_machines_need_tokens_and_tls() -> None:
    with pytest.raises(ConfigurationError, match="without tokens"):
        check_exposure("0.0.0.0", Auth(None), tls=True, insecure=False)
    with pytest.raises(ConfigurationError, match="without TLS"):
        check_exposure("0.0.0.0", Auth(TOKENS), tls=False, insecure=False)
    check_exposure("0.0.0.0", Auth(TOKENS), tls=True, insecure=False)
    check_exposure("0.0.0.0", Auth(TOKENS), tls=False, insecure=True)
    check_exposure("127.0.0.1", Auth(None), tls=False, insecure=False)
