"""Option values that are objects, as plain data that travels with a run, and back.

Only what says the same in every process can travel: the policies of this package without lock managers,
serializers by their type and fields, storages that other processes can find.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect_lite import cache_policies
from prefect_lite.exceptions import ConfigurationError, PrefectException
from prefect_lite.thread_or_loop import in_thread


def as_plain(name: str, value: Any) -> Any:
    """Plain data for the value of an option.

    Raises:
        TypeError: There is none: only this process has what it is.
    """
    if name == "asset_deps":
        from prefect_lite.assets.core import as_plain as plain_assets

        return plain_assets(value)
    if name == "cache_policy":
        return _policy_as_plain(value)
    if isinstance(value, str):
        return value
    if name == "result_serializer":
        from prefect_lite.serializers import Serializer, serializer_spec

        if isinstance(value, Serializer):
            return serializer_spec(cast("Serializer[Any]", value))
    elif isinstance(value, Path):
        return str(value)
    else:
        from prefect_lite.result_storage import storage_spec

        try:
            return storage_spec(value)
        except PrefectException as exc:
            raise TypeError(str(exc)) from exc
    raise TypeError(f"a {type(value).__name__} can't be described")


def from_plain(name: str, plain: Any) -> Any:
    """The value that ``as_plain`` has described.

    Raises:
        ConfigurationError: There is no such thing in this process.
    """
    if not isinstance(plain, dict):
        return plain
    fields = cast("dict[str, Any]", plain)
    if name == "cache_policy":
        return _policy_from_plain(fields)
    if name == "result_serializer":
        from prefect_lite.serializers import serializer_from_spec

        try:
            return serializer_from_spec(fields)
        except ConfigurationError as exc:
            raise ConfigurationError(
                f"The run's result_serializer {fields.get('type')!r} is not known on this worker. {exc}"
            ) from exc
    if "block" in fields:
        # By its name, as each run looks it up: this is remembered, and here nothing may wait for the broker.
        return fields["block"]
    from prefect_lite.result_storage import storage_from_spec

    return in_thread(storage_from_spec(fields))


_POLICIES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        type(cache_policies.NO_CACHE),
        cache_policies.TaskSource,
        cache_policies.FlowParameters,
        cache_policies.RunId,
        cache_policies.Inputs,
        cache_policies.CompoundCachePolicy,
    )
}


def _policy_as_plain(policy: Any) -> dict[str, Any]:
    kind = policy.__class__
    if _POLICIES.get(kind.__name__) is not kind or policy.lock_manager is not None:
        raise TypeError("a policy of your own, or one with a lock manager, can't be described")
    plain: dict[str, Any] = {"policy": kind.__name__}
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if value is None or value == []:
            continue
        if field.name == "policies":
            value = [_policy_as_plain(part) for part in value]
        elif field.name == "key_storage":
            value = as_plain("result_storage", value)
        elif field.name == "isolation_level":
            value = str(getattr(value, "value", value))
        plain[field.name] = value
    return plain


def _policy_from_plain(plain: Mapping[str, Any]) -> cache_policies.CachePolicy:
    fields = dict(plain)
    name = str(fields.pop("policy", None))
    kind = _POLICIES.get(name)
    if kind is None:
        raise ConfigurationError(f"The run's cache policy {name!r} is not known on this worker.")
    if "policies" in fields:
        fields["policies"] = [_policy_from_plain(part) for part in fields["policies"]]
    if isinstance(fields.get("key_storage"), dict):
        fields["key_storage"] = from_plain("result_storage", fields["key_storage"])
    return kind(**fields)
