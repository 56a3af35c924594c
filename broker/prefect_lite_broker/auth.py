"""Tokens: who may connect in which role.

The broker keeps digests only and compares in constant time. Where the tokens come from is the business
of ``prefect_lite.embedded.home``, which clients and workers of the same home use too.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.protocol.roles import ROLES

NO_ROLES: frozenset[str] = frozenset()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Auth:
    """Maps a bearer token to the roles it opens."""

    def __init__(self, tokens: Mapping[str, str] | None) -> None:
        """
        Args:
            tokens: Token of each role; an empty one opens nothing. None: no token is asked for.
        """
        self.open = tokens is None
        self._digests = [(role, _digest(token)) for role, token in (tokens or {}).items() if token]

    def roles(self, authorization: str) -> frozenset[str]:
        """The roles that an Authorization header opens; empty: refused. An admin is a client too."""
        if self.open:
            return ROLES
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return NO_ROLES
        asked = _digest(token.strip())
        # Every digest is compared, so the time tells nothing about which one matched.
        found = {role for role, digest in self._digests if hmac.compare_digest(digest, asked)}
        if "admin" in found:
            found.add("client")
        return frozenset(found)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, auth: Auth, *, tls: bool, insecure: bool) -> None:
    """Refuse to listen for other machines without tokens, or in clear text, unless told to.

    Raises:
        ConfigurationError: Says what is missing.
    """
    if insecure or is_loopback(host):
        return
    if auth.open:
        raise ConfigurationError(
            f"Listening on {host!r} without tokens would let anybody run code on the workers. "
            "Drop --no-auth, listen on 127.0.0.1, or add --insecure."
        )
    if not tls:
        raise ConfigurationError(
            f"Listening on {host!r} without TLS would send tokens and payloads in clear text. "
            "Listen on 127.0.0.1 behind a TLS proxy, or add --insecure on a trusted network."
        )
