"""What the tests of the SDK use, for these too."""

from __future__ import annotations

from tests.unit.sdk.conftest import client_home

__all__ = ["client_home"]
