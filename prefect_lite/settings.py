"""Settings, from environment variables ``PREFECT_LITE_*`` (and ``PREFECT_LITE_HOME/settings.env``).

All protocol times are settings, so that a test suite can run the real system with short ones. Loaded on
first use, never at import: pydantic-settings is slow to import and most processes only need defaults.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from prefect_lite.default_home import default_home
from prefect_lite.exceptions import ConfigurationError

KIB = 1024
MIB = 1024 * KIB


class Settings(BaseSettings):
    """One object for client, worker and broker; each field names its unit and default."""

    model_config = SettingsConfigDict(env_prefix="PREFECT_LITE_", extra="ignore", frozen=True)

    # Where things are
    home: Path = Field(
        default_factory=default_home, description="Keys, tokens, data and logs of this account."
    )
    runtime_dir: Path | None = Field(
        default=None,
        description="Short private directory for sockets; default under XDG_RUNTIME_DIR or /tmp.",
    )
    broker_url: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="ws:// or wss:// URLs, comma-separated; empty: the embedded broker."
    )
    namespace: str = Field(default="default", description="Separates applications on one Redis.")

    # Trust
    client_token: str = Field(default="", description="Bearer token for clients.")
    worker_token: str = Field(default="", description="Bearer token for workers.")
    admin_token: str = Field(default="", description="Bearer token for administration.")
    keyring: str = Field(default="", description="Path of the payload keyring; empty: HOME/keyring.json.")

    # Connections
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    handshake_timeout_seconds: float = Field(default=10.0, gt=0)
    write_deadline_seconds: float = Field(default=10.0, gt=0, description="No progress on a frame: closed.")
    backoff_min_seconds: float = Field(default=0.1, gt=0)
    backoff_max_seconds: float = Field(default=15.0, gt=0)
    max_payload_bytes: int = Field(default=32 * MIB, gt=0)
    queue_wait_seconds: float = Field(
        default=0.0, ge=0, description="A submit waits so long for room in a queue; 0: QueueFull at once."
    )
    max_unconfirmed_runs: int = Field(
        default=100_000, ge=1, description="Submits of a process without a broker's word; more have to wait."
    )
    max_unconfirmed_bytes: int = Field(default=256 * MIB, ge=1, description="Their arguments.")
    watch_refresh_seconds: float = Field(default=5.0, gt=0, description="Futures re-read this often.")

    # Leases
    lease_seconds: float = Field(default=15.0, gt=0)
    renew_seconds: float = Field(default=5.0, gt=0)
    disconnect_grace_seconds: float = Field(default=5.0, ge=0)
    max_lost: int = Field(default=3, ge=0, description="Lost leases before a run is Crashed.")
    suspect_group_max: int = Field(
        default=50, ge=1, description="Runs lost together with more than this many are not isolated at once."
    )
    suspect_seconds: float = Field(
        default=0.25,
        ge=0,
        description="A run that lost one lease has to run for so long before the next such run joins it.",
    )

    # Broker
    redis_url: str = Field(
        default="",
        description="redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://; empty: embedded.",
    )
    redis_wait_replicas: int = Field(
        default=0, ge=0, description="Replicas that have to confirm each write before it is answered."
    )
    redis_wait_replicas_seconds: float = Field(
        default=1.0, gt=0, description="For them to do so; else the write is made again."
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="None: what the namespace has, 1 or in a cluster 16 when new.",
    )
    appendfsync: str = Field(default="everysec", pattern="^(no|everysec|always)$")
    idle_seconds: float = Field(default=600.0, gt=0, description="Embedded broker stops after this.")
    poll_seconds: float = Field(default=1.0, gt=0, description="Longest cost of a lost wake-up hint.")
    reap_seconds: float = Field(default=0.5, gt=0)
    retention_seconds: float = Field(default=30.0, gt=0)
    audit_seconds: float = Field(
        default=1.0, gt=0, description="Between two slices of the audit, of all brokers together."
    )
    redis_wait_seconds: float = Field(default=5.0, gt=0, description="Submits are refused after this.")
    result_ttl_seconds: float = Field(default=86_400.0, gt=0)
    min_result_ttl_seconds: float = Field(default=600.0, gt=0)
    idempotency_seconds: float = Field(default=86_400.0, gt=0)
    max_dead: int = Field(default=10_000, ge=1)
    max_connections: int = Field(default=10_000, ge=1)
    max_pending_handshakes: int = Field(default=1_000, ge=1)
    max_pending_writes: int = Field(default=50_000, ge=1, description="Store operations waiting in a broker.")
    max_pending_bytes: int = Field(
        default=256 * MIB, ge=1, description="Arguments of submits waiting in a broker, over all shards."
    )
    max_queue_length: int = Field(
        default=2_000_000, ge=1, description="READY runs per task key and priority; DELAYED ones per shard."
    )
    unknown_parent_seconds: float = Field(
        default=60.0, gt=0, description="A run that others wait for, never submitted, is given up after this."
    )
    max_queued_total: int = Field(
        default=5_000_000, ge=1, description="READY, DELAYED and BLOCKED runs of the namespace."
    )
    test_clock: bool = Field(
        default=False, description="Whoever may submit may advance the broker's time; for test suites."
    )
    max_log_lines: int = Field(default=1_000, ge=0, description="Kept per run.")

    # Worker
    limit: int = Field(default=10, ge=1)
    grace_seconds: float = Field(default=30.0, ge=0, description="To finish after SIGTERM.")
    hung_seconds: float = Field(
        default=2.0, gt=0, description="From a deadline until a coroutine is given up."
    )

    # Results, caches and locks
    persist_results: bool = Field(
        default=False, description="Persist results of tasks and flows that say nothing about it."
    )
    result_storage: str = Field(
        default="",
        description="Path, URL or saved block (slug/name) for persisted results; empty: files under "
        "storage_path, for runs on workers the broker's Redis.",
    )
    storage_path: Path | None = Field(default=None, description="Files of results; empty: HOME/storage.")
    inline_result_bytes: int = Field(
        default=MIB,
        ge=0,
        description="Longer results of runs on workers go to their result storage, where there is one.",
    )
    cache_idle_seconds: float = Field(
        default=30 * 86_400.0, gt=0, description="A cache entry in Redis nobody has read for so long goes."
    )
    refresh_cache: bool = Field(default=False, description="Tasks that say nothing about it refresh caches.")
    lock_seconds: float = Field(
        default=15.0, gt=0, description="A lock in Redis is free so long after its holder was last heard of."
    )
    keep_wait_seconds: float = Field(
        default=10.0, gt=0, description="How long a run waits for the broker's word about caches and blocks."
    )

    log_level: str = Field(default="INFO")

    @field_validator("broker_url", mode="before")
    @classmethod
    def _split_urls(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        for url in value:
            if not str(url).startswith(("ws://", "wss://", "ws+unix://")):
                raise ValueError(f"{url!r} is not a ws://, wss:// or ws+unix:// URL")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        for low, high, inclusive in (
            ("renew_seconds", "lease_seconds", False),
            ("backoff_min_seconds", "backoff_max_seconds", True),
        ):
            small, large = getattr(self, low), getattr(self, high)
            if not (small <= large if inclusive else small < large):
                rule = "must not be above" if inclusive else "must be below"
                raise ValueError(f"{_variable(low)} ({small:g}) {rule} {_variable(high)} ({large:g})")
        return self


def _variable(field: str) -> str:
    return f"PREFECT_LITE_{field.upper()}"


@lru_cache(maxsize=1)
def _load() -> Settings:
    return load_settings()


def load_settings(**overrides: Any) -> Settings:
    """Read the environment anew, with ``overrides`` winning.

    Raises:
        ConfigurationError: A value does not fit; names the variable and the rule.
    """
    env_file = default_home() / "settings.env"
    try:
        return Settings(_env_file=env_file if env_file.is_file() else None, **overrides)  # pyright: ignore[reportCallIssue]
    except ValidationError as exc:
        problems = "; ".join(
            f"{_variable(str(error['loc'][0]))}: {error['msg']}"
            if error["loc"]
            else error["msg"].removeprefix("Value error, ")
            for error in exc.errors()
        )
        raise ConfigurationError(f"Bad setting. {problems}.") from None


def get_settings() -> Settings:
    """The settings of this process, read once; ``get_settings.cache_clear()`` reads them anew."""
    return _load()


def _forget() -> None:
    _load.cache_clear()
    persistence = sys.modules.get("prefect_lite.persistence")
    if persistence is not None:
        persistence.forget_settings()


get_settings.cache_clear = _forget  # type: ignore[attr-defined]
