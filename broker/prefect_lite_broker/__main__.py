"""``python -m prefect_lite_broker``: run a broker in the foreground until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Sequence

from prefect_lite.exceptions import ConfigurationError, PrefectLiteError
from prefect_lite.settings import Settings, load_settings
from prefect_lite_broker.process import keep_what_is_loaded, run, set_up_logging

DEFAULT_PORT = 4280

logger = logging.getLogger("prefect_lite_broker")


def parser() -> argparse.ArgumentParser:
    """The command line; every other setting is an environment variable ``PREFECT_LITE_*``."""
    made = argparse.ArgumentParser(
        prog="python -m prefect_lite_broker",
        description="Run a prefect_lite broker in the foreground.",
        epilog="Other settings are read from the environment (PREFECT_LITE_*).",
    )
    made.add_argument(
        "--redis-url",
        help="redis://, unix://, redis+cluster:// or redis+sentinel:// URL of the Redis or Valkey to use; "
        "rediss:// for TLS",
    )
    made.add_argument("--embedded", action="store_true", help="start a Valkey of this account instead")
    made.add_argument("--host", default="127.0.0.1", help="address for TCP (default: %(default)s)")
    made.add_argument(
        "--port", type=int, help=f"TCP port, 0 for any (default: {DEFAULT_PORT} without --unix)"
    )
    made.add_argument("--unix", metavar="PATH", default="", help="listen on a unix socket")
    made.add_argument("--namespace", help="separates applications on one Redis")
    made.add_argument("--no-auth", action="store_true", help="ask for no token (loopback only)")
    made.add_argument("--insecure", action="store_true", help="allow other machines without tokens or TLS")
    made.add_argument(
        "--strict", action="store_true", help="refuse a Redis that may lose runs, instead of warning"
    )
    made.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR")
    return made


def _settings(args: argparse.Namespace) -> Settings:
    given = {name: getattr(args, name) for name in ("redis_url", "namespace", "log_level")}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    if not args.embedded and not settings.redis_url:
        raise ConfigurationError(
            "Which Redis? Give --redis-url (or PREFECT_LITE_REDIS_URL), or --embedded to have one started."
        )
    return settings


async def run_broker(settings: Settings, args: argparse.Namespace) -> int:
    """Run a broker on ``settings.redis_url`` until a signal or an administrator ends it."""
    from prefect_lite_broker.app import Broker
    from prefect_lite_broker.auth import Auth
    from prefect_lite_broker.redis_store import RedisStore

    port = DEFAULT_PORT if args.port is None and not args.unix else args.port
    broker_id = f"broker-{secrets.token_hex(6)}"
    broker = Broker(
        settings,
        RedisStore(settings, broker_id),
        broker_id=broker_id,
        auth=Auth(None) if args.no_auth else None,
        insecure=args.insecure,
        strict=args.strict,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, broker.ask_stop, signal.Signals(number).name)
    await broker.start(unix_path=args.unix, host=args.host, port=port)
    logger.info("Broker %s listens on %s", broker.broker_id, ", ".join(broker.addresses))
    keep_what_is_loaded()
    try:
        await broker.serve()
        logger.info("Stopping: %s", broker.stop_reason)
    finally:
        await broker.stop()
    return 0


async def run_embedded(settings: Settings, args: argparse.Namespace) -> int:
    """Run the embedded broker with its own Valkey, in the foreground."""
    from prefect_lite_broker import embedded

    options = embedded.Options(args.host, args.port, args.no_auth, args.insecure)
    return await embedded.run_embedded(settings, options)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    args = parser().parse_args(argv)
    try:
        settings = _settings(args)
        set_up_logging(settings)
        return run(run_embedded(settings, args) if args.embedded else run_broker(settings, args))
    except PrefectLiteError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
