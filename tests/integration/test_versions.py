"""A broker that speaks another version of the protocol is not asked for ever."""

from __future__ import annotations

from tests.integration.harness import PrivateHome


def test_no_common_protocol_version_is_said_at_once(home: PrivateHome) -> None:
    home.write("tasks.py", "from prefect_lite import task\n\n@task\ndef add(x): return x\n")
    home.python("from tasks import add; add.delay(1)")
    out = home.python(
        """
        import prefect_lite.client.connection as connection
        connection.PROTOCOL_NAME = "prefect-lite.v9"
        from tasks import add
        try:
            add.delay(1)
        except Exception as exc:
            print(type(exc).__name__, exc)
        """
    )
    assert out.stdout.startswith("ProtocolVersionError"), out.stdout + out.stderr
    assert "prefect-lite.v1" in out.stdout
