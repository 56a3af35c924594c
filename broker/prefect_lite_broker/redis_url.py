"""Reads ``PREFECT_LITE_REDIS_URL``: one server, a cluster, or a master that sentinels know.

======================================================================  =====================================
URL                                                                     leads to
======================================================================  =====================================
``redis://[user:password@]host[:port][/db]``, ``unix://path[?db=n]``    one server
``redis+cluster://[user:password@]host:port,host:port``                 a cluster; the hosts are where to ask
``redis+sentinel://[user:password@]host:port,host:port/service[/db]``   the master of a service
======================================================================  =====================================

With ``rediss`` in place of ``redis`` every connection is made with TLS, those to sentinels too. User and
password are those of the data nodes; a sentinel's own are ``?sentinel_username=`` and
``?sentinel_password=``. Every other query parameter is an option of redis-py's connection
(``ssl_ca_certs``, ``ssl_cert_reqs``, ...).
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, parse_url

from prefect_lite.exceptions import ConfigurationError

CONNECT_SECONDS = 5.0

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379

ALONE, CLUSTER, SENTINEL = "alone", "cluster", "sentinel"

Node = tuple[str, int]
"""Host and port."""

_KINDS = {
    "redis": ALONE,
    "rediss": ALONE,
    "unix": ALONE,
    "redis+cluster": CLUSTER,
    "rediss+cluster": CLUSTER,
    "redis+sentinel": SENTINEL,
    "rediss+sentinel": SENTINEL,
}


class RedisAddress(NamedTuple):
    """What the URL says.

    Attributes:
        kind: ``ALONE``, ``CLUSTER`` or ``SENTINEL``.
        nodes: Where to ask about the cluster or the master; empty for one server.
        service: The master's name among the sentinels.
        connection_class: Of redis-py.
        options: Its arguments; without host and port unless it is one server.
        sentinel_options: The same for sentinels.
    """

    kind: str
    nodes: list[Node]
    service: str
    connection_class: type[AbstractConnection]
    options: dict[str, Any]
    sentinel_options: dict[str, Any]

    def connection(self, node: Node | None = None) -> AbstractConnection:
        """One that is not connected yet, to a data node."""
        where: dict[str, Any] = {} if node is None else {"host": node[0], "port": node[1]}
        return self.connection_class(**self.options, **where)

    def sentinel_connection(self, node: Node) -> AbstractConnection:
        where: dict[str, Any] = {"host": node[0], "port": node[1]}
        return self.connection_class(**self.sentinel_options, **where)


def parse_redis_url(url: str) -> RedisAddress:
    """
    Raises:
        ConfigurationError: Says in a sentence what is wrong with the URL (which is not in it: it may
            hold a password).
    """
    try:
        address = _parse(url)
        # redis-py notices an option that it does not know only here.
        address.connection(None if address.kind == ALONE else ("localhost", 1))
        if address.kind == SENTINEL:
            address.sentinel_connection(("localhost", 1))
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(f"PREFECT_LITE_REDIS_URL: {str(exc).rstrip('.')}.") from None
    return address


def _parse(url: str) -> RedisAddress:
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme.lower())
    if kind is None or not rest:
        raise ValueError(f"it must begin with one of {', '.join(f'{name}://' for name in _KINDS)}")
    parts = urlsplit(url)
    if kind == ALONE:
        return _alone(url, parts.netloc.rpartition("@")[2])
    credentials, _, hosts = parts.netloc.rpartition("@")
    path = [unquote(word) for word in parts.path.split("/") if word]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    sentinel = [query.pop(f"sentinel_{name}", "") for name in ("username", "password")]
    service, db = "", 0
    if kind == CLUSTER:
        if any(sentinel):
            raise ValueError("sentinel_username and sentinel_password belong to a redis+sentinel:// URL")
        if path or query.get("db", "0") != "0":
            raise ValueError("a cluster has no numbered databases; leave out what follows the hosts")
        query.pop("db", None)
    else:
        service, db = _service(path)
    base = scheme.lower().partition("+")[0]
    options = _options(base, credentials, query)
    if db:
        options["db"] = db
    default_port = DEFAULT_PORT if kind == CLUSTER else DEFAULT_SENTINEL_PORT
    nodes = [_node(host, default_port) for host in hosts.split(",")]
    connection_class = options.pop("connection_class", Connection)
    login = ":".join(quote(word, safe="") for word in sentinel) if any(sentinel) else ""
    sentinel_options = _options(base, login, query)
    sentinel_options.pop("connection_class", None)
    return RedisAddress(kind, nodes, service, connection_class, options, sentinel_options)


def _alone(url: str, hosts: str) -> RedisAddress:
    if "," in hosts:
        raise ValueError(
            "several hosts need to be said what they are: redis+cluster://host:port,host:port or "
            "redis+sentinel://host:port,host:port/service"
        )
    parts = urlsplit(url)
    if parts.scheme != "unix":
        db = parts.path.strip("/")
        if db and not db.isdigit():
            raise ValueError(f"{db[:50]!r} is no number of a database")
        if hosts:
            _node(hosts, DEFAULT_PORT)
    elif not parts.path:
        raise ValueError("unix:// needs the path of a socket, as in unix:///run/valkey.sock")
    options = _checked(dict(parse_url(url)))
    return RedisAddress(ALONE, [], "", options.pop("connection_class", Connection), options, {})


def _service(path: list[str]) -> tuple[str, int]:
    if not path:
        raise ValueError("the name of the service is missing, as in redis+sentinel://host:port/service")
    service, *rest = path
    if len(rest) > 1 or (rest and not rest[0].isdigit()):
        raise ValueError(
            f"after the service comes at most the number of a database, not {'/'.join(rest)[:50]!r}"
        )
    return service, int(rest[0]) if rest else 0


def _node(host: str, default_port: int) -> Node:
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{host[:100]!r} is no host and port") from None
    if not name or parts.path:
        raise ValueError(f"{host[:100]!r} is no host and port")
    return name, default_port if port is None else port


def _options(base: str, credentials: str, query: dict[str, str]) -> dict[str, Any]:
    """What redis-py reads from a URL with these credentials and parameters, without host and port."""
    user = f"{credentials}@" if credentials else ""
    text = f"{base}://{user}localhost?{urlencode(query)}"
    options = _checked(dict(parse_url(text)))
    options.pop("host", None)
    return options


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    options.update(
        protocol=2,
        socket_timeout=None,  # every exchange is bounded as a whole
        socket_connect_timeout=CONNECT_SECONDS,
        client_name="prefect-lite",
    )
    if "path" not in options:
        options["socket_keepalive"] = True
    return options
