"""Settings that have to fit each other."""

from __future__ import annotations

import pytest

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import load_settings


@pytest.mark.parametrize("renew", [15.0, 20.0])
def test_renewals_come_before_the_lease_ends(renew: float) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(lease_seconds=15.0, renew_seconds=renew)
    rule = f"PREFECT_LITE_RENEW_SECONDS ({renew:g}) must be below PREFECT_LITE_LEASE_SECONDS (15)"
    assert str(caught.value) == f"Bad setting. {rule}."


def test_backoff_bounds_are_in_order() -> None:
    with pytest.raises(ConfigurationError, match=r"BACKOFF_MIN_SECONDS .* must not be above"):
        load_settings(backoff_min_seconds=2.0, backoff_max_seconds=1.0)
    load_settings(backoff_min_seconds=1.0, backoff_max_seconds=1.0)


def test_one_bad_value_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="PREFECT_LITE_SHARDS: "):
        load_settings(shards=0)
