"""When and how a run is to be executed: what ``apply_async`` takes beside the arguments."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, cast

from prefect_lite import clock
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.run_ids import new_run_id, parse_run_id, run_id_for

if TYPE_CHECKING:
    from uuid import UUID


class SendConditions(TypedDict, total=False):
    """When and how a run is to be executed. Nothing given: at once.

    ``countdown``: seconds to wait first. ``eta``: the same as a point in time, an aware datetime.
    ``expires``: seconds from now, or an aware datetime, after which a run that has not started is cancelled.
    ``priority``: 0 (default) to 9, higher first. ``idempotency_key``: a second run of the task with the same
    key is the first one, until a day after its end. ``run_id``: the id to give the run.
    ``queue_timeout``: seconds to wait for room in a full queue, or for a store that is away, before the call
    raises ``QueueFull`` or ``StoreUnavailable``. None: that of the ``batch`` around it, else the setting
    ``queue_wait_seconds``, which is 0 (at once) by default.
    """

    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    priority: int
    idempotency_key: str | None
    run_id: UUID | str | None
    queue_timeout: float | None


def parse_conditions(task_key: str, given: SendConditions) -> tuple[str, tuple[float, float, int, str]]:
    """(run id, (countdown seconds, expiry seconds, priority, idempotency key))

    Raises:
        TypeError: There is no such condition.
        ConfigurationError: One has an impossible value.
    """
    unknown = set(given) - set(SendConditions.__annotations__)
    if unknown:
        raise TypeError(f"apply_async() got an unexpected keyword argument {unknown.pop()!r}")
    countdown = seconds_of("countdown", given.get("countdown"))
    eta: Any = given.get("eta")
    if eta is not None:
        if countdown is not None:
            raise ConfigurationError("Give countdown or eta, not both.")
        countdown = max(0.0, _until("eta", eta))
    expires: Any = given.get("expires")
    if expires is not None:
        expires = (
            _until("expires", expires) if isinstance(expires, datetime) else seconds_of("expires", expires)
        )
        if expires <= 0:
            raise ConfigurationError(f"expires must be in the future, got {given.get('expires')!r}.")
    priority: Any = given.get("priority", 0)
    if type(priority) is not int or not 0 <= priority <= 9:
        raise ConfigurationError(f"priority must be a whole number from 0 to 9, got {priority!r}.")
    key: Any = given.get("idempotency_key")
    if key is not None:
        _check_idempotency_key(key)
    asked = given.get("run_id")
    if asked is not None and key is not None:
        raise ConfigurationError("Give run_id or idempotency_key, not both: the key chooses the id.")
    if asked is not None:
        run_id = parse_run_id(asked)
    else:
        run_id = run_id_for(task_key, key) if key is not None else new_run_id()
    return run_id, (countdown or 0.0, cast("float", expires or 0.0), priority, key or "")


def _check_idempotency_key(key: Any) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= 512:
        raise ConfigurationError(f"An idempotency_key is a string of 1 to 512 characters, got {key!r}.")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"The idempotency_key {key!r} is no valid text: {exc.reason}.") from None


def seconds_of(name: str, value: Any) -> float | None:
    """A duration as it was given, None for none. Raises: ConfigurationError: It is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 3e9:
        raise ConfigurationError(f"{name} must be a number of seconds, not negative, got {value!r}.")
    return float(value)


def _until(name: str, moment: Any) -> float:
    if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
        raise ConfigurationError(
            f"{name} must be an aware datetime, like datetime.now(UTC) + timedelta(hours=1), not {moment!r}."
        )
    return (moment - clock.now()).total_seconds()
