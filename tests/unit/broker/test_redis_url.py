"""What a Redis URL may say, and the sentence for one that can't be used."""

from __future__ import annotations

import pytest
from prefect_lite_broker.redis_url import ALONE, CLUSTER, SENTINEL, parse_redis_url
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from prefect_lite.exceptions import ConfigurationError


def test_one_server() -> None:
    address = parse_redis_url("redis://user:p%40ss@host:7000/3")
    assert (address.kind, address.nodes, address.connection_class) == (ALONE, [], Connection)
    wanted = {"host": "host", "port": 7000, "db": 3, "username": "user", "password": "p@ss"}
    assert wanted.items() <= address.options.items()
    assert parse_redis_url("rediss://host").connection_class is SSLConnection
    address = parse_redis_url("unix:///run/valkey.sock?db=2")
    assert address.connection_class is UnixDomainSocketConnection
    assert {"path": "/run/valkey.sock", "db": 2}.items() <= address.options.items()


def test_a_cluster() -> None:
    address = parse_redis_url("redis+cluster://u:p@a:7000,b,[::1]:7002?socket_keepalive=no")
    assert (address.kind, address.connection_class) == (CLUSTER, Connection)
    assert address.nodes == [("a", 7000), ("b", 6379), ("::1", 7002)]
    assert {"username": "u", "password": "p"}.items() <= address.options.items()
    assert not {"host", "port", "db"} & set(address.options)
    connection = address.connection(("c", 1))
    assert isinstance(connection, Connection)
    assert (connection.host, connection.port, connection.username) == ("c", 1, "u")
    assert parse_redis_url("rediss+cluster://a:1?ssl_cert_reqs=none").connection_class is SSLConnection


def test_sentinels() -> None:
    url = "redis+sentinel://u:p@a:1,b/runs/4?sentinel_username=su&sentinel_password=s%40p"
    address = parse_redis_url(url)
    assert (address.kind, address.nodes, address.service) == (SENTINEL, [("a", 1), ("b", 26379)], "runs")
    assert {"username": "u", "password": "p", "db": 4}.items() <= address.options.items()
    assert {"username": "su", "password": "s@p"}.items() <= address.sentinel_options.items()
    assert "db" not in address.sentinel_options
    without = parse_redis_url("redis+sentinel://u:p@a:1/runs")
    assert not {"username", "password", "db"} & set(without.sentinel_options)
    tls = parse_redis_url("rediss+sentinel://a/runs?ssl_ca_certs=/ca.pem")
    assert isinstance(tls.sentinel_connection(tls.nodes[0]), SSLConnection)
    assert tls.sentinel_options["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with one of redis://"),
        ("reids://host", "must begin with one of redis://"),
        ("host:6379", "must begin with one of redis://"),
        ("redis+clutser://host", "must begin with one of redis://"),
        ("redis://", "must begin with one of redis://"),
        ("redis://a:1,b:2", "several hosts need to be said what they are: redis\\+cluster"),
        ("redis://host:port", "'host:port' is no host and port"),
        ("redis://host/main", "'main' is no number of a database"),
        ("unix://", "must begin"),
        ("redis+cluster://", "must begin"),
        ("redis+cluster://a:1,,b:2", "'' is no host and port"),
        ("redis+cluster://a:1;b:2", "is no host and port"),
        ("redis+cluster://a:1/1", "no numbered databases"),
        ("redis+cluster://a:1?db=1", "no numbered databases"),
        ("redis+cluster://a:1?sentinel_password=x", "belong to a redis\\+sentinel"),
        ("redis+sentinel://a:1", "the name of the service is missing"),
        ("redis+sentinel://a:1/runs/one", "at most the number of a database, not 'one'"),
        ("redis+sentinel://a:1/runs/1/2", "at most the number of a database"),
        ("redis://host?no_such_option=1", "no_such_option"),
        ("redis+sentinel://a:99999/runs", "is no host and port"),
    ],
)
def test_what_can_not_be_used_is_said_in_a_sentence(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_redis_url(url)
    assert str(caught.value).startswith("PREFECT_LITE_REDIS_URL: ")


def test_no_password_is_told() -> None:
    for url in (
        "redis://u:secret@a:1,b:2",
        "redis+sentinel://u:secret@a:1",
        "reids://u:secret@a",
        "redis://u:secret@a:x",
    ):
        with pytest.raises(ConfigurationError) as caught:
            parse_redis_url(url)
        assert "secret" not in str(caught.value)
