"""The main job as a user meets it: real processes, an embedded broker, and things that go wrong."""

from __future__ import annotations

import collections
import signal
from pathlib import Path

import pytest
import redis

from tests.integration.harness import PrivateHome, Running, wait_until

ADD = """
    from prefect_lite import task

    @task(retries=2, retry_delay_seconds=0.5, timeout_seconds=10, log_prints=True)
    def add(x: int, y: int) -> int:
        print("adding")
        return x + y

    if __name__ == "__main__":
        add.serve()
"""
CALL = "from tasks import add; print(add.delay(1, 2).result(timeout=20))"


def start_worker(home: PrivateHome, name: str = "tasks.py", *args: str, cwd: Path | None = None) -> Running:
    return home.start("worker", name, *args, cwd=cwd)


def store_of(home: PrivateHome) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(next(home.runtime.rglob("valkey.sock"))), decode_responses=True)


@pytest.mark.parametrize("first", ["worker", "client"])
def test_two_terminals_in_two_folders(home: PrivateHome, tmp_path: Path, first: str) -> None:
    other = tmp_path / "elsewhere"
    home.write("tasks.py", ADD)
    home.write("tasks.py", "# one comment line more\n" + ADD.replace("\n    ", "\n"), directory=other)
    if first == "worker":
        worker = start_worker(home)
        worker.wait_for("tasks.add")
        assert home.python(CALL, cwd=other).stdout.strip() == "3"
    else:
        client = home.start("client", "-c", CALL, cwd=other)
        wait_until(lambda: home.broker_pid, 15, "the broker that the client starts")
        worker = start_worker(home)
        assert client.wait(20) == 0, client.output
        assert client.output.strip().endswith("3")
    worker.wait_for("adding")
    home.kill_broker()
    assert home.python(CALL, cwd=other).stdout.strip() == "3"


def test_own_classes_come_back_as_themselves(home: PrivateHome) -> None:
    home.write(
        "tasks.py",
        """
        import enum
        from dataclasses import dataclass
        from prefect_lite import task

        @dataclass
        class Point:
            x: int
            y: int

        class Colour(enum.Enum):
            RED = 1

        class MyError(Exception):
            def __init__(self, code, *, hint):
                super().__init__(code)
                self.code = code
                self.hint = hint

            def __reduce__(self):
                return (_rebuild, (self.code, self.hint))

        def _rebuild(code, hint):
            return MyError(code, hint=hint)

        @task
        def mirror(p: Point, c: Colour):
            assert isinstance(p, Point) and c is Colour.RED
            return Point(p.y, p.x), c

        @task
        def fail():
            raise MyError(7, hint="no")

        if __name__ == "__main__":
            from prefect_lite.task_worker import serve
            serve(mirror, fail)
        """,
    )
    start_worker(home).wait_for("tasks.mirror")
    out = home.python(
        """
        import tasks
        point, colour = tasks.mirror.delay(tasks.Point(1, 2), tasks.Colour.RED).result(timeout=20)
        assert isinstance(point, tasks.Point) and point == tasks.Point(2, 1)
        assert colour is tasks.Colour.RED
        try:
            tasks.fail.delay().result(timeout=20)
        except tasks.MyError as exc:
            assert exc.code == 7 and exc.hint == "no"
            import traceback
            print("".join(traceback.format_exception(exc)))
        else:
            raise SystemExit("nothing was raised")
        """
    ).stdout
    assert "raise MyError(7" in out, "the worker's traceback is shown"


@pytest.mark.parametrize(
    "home", [{"lease_seconds": 15, "renew_seconds": 5, "disconnect_grace_seconds": 5}], indirect=True
)
def test_a_worker_with_500_running_is_killed(home: PrivateHome) -> None:
    home.write(
        "tasks.py",
        """
        import asyncio, os, time
        import redis.asyncio
        from prefect_lite import task

        counts = None

        @task
        async def hold(i):
            global counts
            if counts is None:
                url = "unix://" + os.environ["COUNTS"]
                pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=8, timeout=30)
                counts = redis.asyncio.Redis(connection_pool=pool)
            await counts.rpush(f"executions:{i}", f"{os.getpid()} {time.time()}")
            await asyncio.sleep(6)
            return i

        if __name__ == "__main__":
            hold.serve(limit=500)
        """,
    )
    home.python("from prefect_lite.client.runtime import get_runtime; get_runtime().ask('stats').wait(20)")
    home.env["COUNTS"] = str(next(home.runtime.rglob("valkey.sock")))
    workers = [start_worker(home) for _ in range(2)]
    for worker in workers:
        worker.wait_for("tasks.hold")
    client = home.start(
        "client",
        "-c",
        "from tasks import hold; r = hold.map(range(1000), deferred=True).result(timeout=60); "
        "assert r == list(range(1000)); print('all 1000')",
    )
    counts = store_of(home)

    def phases() -> collections.Counter[str]:
        pipe = counts.pipeline(transaction=False)
        for key in counts.scan_iter("pl:*:r:*", count=2000):
            pipe.hget(key, "st")
        return collections.Counter(pipe.execute())

    wait_until(lambda: phases()["X"] == 1000, 20, "1,000 runs RUNNING")
    wait_until(lambda: len(counts.keys("executions:*")) == 1000, 20, "all of them in user code")
    workers[0].kill()
    killed_at = float(counts.time()[0])
    assert client.wait(60) == 0, client.output
    assert phases() == {"c": 1000}
    executions = [counts.lrange(f"executions:{i}", 0, -1) for i in range(1000)]
    again = [runs for runs in executions if len(runs) > 1]
    assert len(again) == 500, "what the dead worker had, and nothing else"
    assert all(len(runs) == 2 and runs[0].split()[0] == str(workers[0].pid) for runs in again)
    delays = [float(runs[1].split()[1]) - killed_at for runs in again]
    print(f"running again {min(delays):.1f} to {max(delays):.1f} s after the kill")
    assert max(delays) < 15, "the disconnect ended the leases, not their time"


def test_broker_killed_between_delay_and_result(home: PrivateHome) -> None:
    home.write("tasks.py", ADD)
    home.python("from tasks import add; print(add.delay(1, 1).task_run_id)")  # accepted, nobody serves it yet
    run_id = home.python("from tasks import add; print(add.delay(20, 22).task_run_id)").stdout.strip()
    home.kill_broker()
    start_worker(home)
    out = home.python(
        f"""
        from uuid import UUID
        from prefect_lite.futures import PrefectDistributedFuture
        print(PrefectDistributedFuture(UUID("{run_id}")).result(timeout=20))
        """
    )
    assert out.stdout.strip() == "42"


@pytest.mark.parametrize("home", [{"appendfsync": "always"}], indirect=True)
def test_valkey_killed_between_delay_and_result(home: PrivateHome) -> None:
    home.write("tasks.py", ADD)
    client = home.start(
        "client",
        "-c",
        "from tasks import add; f = add.map(range(200), 1, deferred=True); print('accepted', flush=True); "
        "print(sum(f.result(timeout=30)))",
    )
    client.wait_for("accepted")
    home.kill_valkey()
    wait_until(lambda: home.valkey_pid, 15, "Valkey's return")
    start_worker(home)
    assert client.wait(40) == 0, client.output
    assert client.output.strip().endswith(str(sum(range(200)) + 200))


TRIPWIRE = """
import os, sys
if any("prefect_lite_broker" in arg for arg in sys.orig_argv):
    def hook(event, args, path=os.environ["TRIPWIRE"]):
        if event == "pickle.find_class" or (
            event == "import" and args[0] in ("cloudpickle", "prefect_lite.tasks", "prefect_lite.encoding")
        ):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, f"{event} {args}\\n".encode())
            os.close(fd)
    sys.addaudithook(hook)
    open(os.environ["TRIPWIRE"] + ".armed", "w").close()
"""


def test_the_broker_never_unpickles(home: PrivateHome, tmp_path: Path) -> None:
    wire = tmp_path / "tripped"
    home.write("sitecustomize.py", TRIPWIRE)
    home.env |= {"PYTHONPATH": str(home.project), "TRIPWIRE": str(wire)}
    home.write(
        "tasks.py",
        """
        import os
        from prefect_lite import task

        class Bomb:
            def __init__(self, path): self.path = path
            def __reduce__(self): return (os.system, (f"echo boom >> {self.path}",))

        @task
        def take(value): return Bomb("/dev/null")

        if __name__ == "__main__":
            take.serve()
        """,
    )
    start_worker(home).wait_for("tasks.take")
    home.python("from tasks import take, Bomb; take.delay(Bomb('/dev/null')).result(timeout=20)")
    home.cli("broker", "status")
    assert Path(f"{wire}.armed").exists(), "the tripwire was in the broker"
    assert not wire.exists(), wire.read_text()


def test_an_altered_payload_is_refused_before_decoding(home: PrivateHome, tmp_path: Path) -> None:
    mark = tmp_path / "decoded"
    home.write(
        "tasks.py",
        f"""
        import os
        from prefect_lite import task

        class Spy:
            def __reduce__(self): return (os.system, ("touch {mark}",))

        @task
        def take(value, text="AAAAAAAA"): return 1

        if __name__ == "__main__":
            take.serve()
        """,
    )
    run_id = home.python(
        "from tasks import take, Spy; print(take.delay(Spy()).task_run_id.hex)"
    ).stdout.strip()
    store = redis.Redis(unix_socket_path=str(next(home.runtime.rglob("valkey.sock"))))
    key = next(iter(store.scan_iter(f"pl:*:b:{run_id}")))
    body = store.get(key)
    assert isinstance(body, bytes)
    assert b"AAAA" not in body
    store.set(key, body.replace(b"touch", b"touc\x00"))
    start_worker(home).wait_for("tasks.take")
    out = home.python(
        f"""
        from uuid import UUID
        from prefect_lite.futures import PrefectDistributedFuture
        try:
            PrefectDistributedFuture(UUID("{run_id}")).result(timeout=20)
        except Exception as exc:
            print(type(exc).__name__, exc)
        """
    ).stdout
    assert "EnvelopeRejected" in out
    assert not mark.exists(), "the payload was decoded"


def test_a_regex_that_holds_the_gil_for_half_a_lease(home: PrivateHome) -> None:
    home.write(
        "tasks.py",
        """
        import re, time
        from prefect_lite import task

        def match(n): re.match(r"(a+)+$", "a" * n + "b")

        def size_for(seconds):
            n = 16
            while True:
                started = time.perf_counter()
                match(n)
                spent = time.perf_counter() - started
                if spent > seconds / 2.5:
                    return n
                n += 1

        @task
        def hold_gil(n): match(n); return "done"

        if __name__ == "__main__":
            hold_gil.serve()
        """,
    )
    start_worker(home).wait_for("tasks.hold_gil")
    out = home.python(
        "from tasks import hold_gil, size_for; print(hold_gil.delay(size_for(0.75)).result(timeout=30))"
    )
    assert out.stdout.strip() == "done"
    store = store_of(home)
    assert [store.hget(key, "l") for key in store.scan_iter("pl:*:r:*")] == [None]


ERRORS = {
    "arguments that do not bind": ("add.delay(1)", "ParameterBindError", "y"),
    "an argument that cannot be serialized": (
        "import threading; add.delay(threading.Lock(), 1)", "SerializationError", "'x'",
    ),
    "a payload over the limit": ("add.delay(b'x' * 40_000_000, 1)", "PayloadTooLarge", "max_payload"),
    "a result that cannot be serialized": (
        "lock.delay().result(timeout=20)", "SerializationError", "tasks.lock",
    ),
    "an unknown task": ("ghost.delay().result(timeout=2)", "TimeoutError", "tasks.ghost"),
}  # fmt: skip


@pytest.fixture(scope="module")
def error_home(tmp_path_factory: pytest.TempPathFactory):
    home = PrivateHome(tmp_path_factory.mktemp("errors"))
    home.write(
        "tasks.py",
        """
        import threading
        from prefect_lite import task
        from prefect_lite.task_worker import serve

        @task
        def add(x, y): return x + y

        @task
        def lock(): return threading.Lock()

        @task
        def ghost(): return 1

        if __name__ == "__main__":
            serve(add, lock)
        """,
    )
    worker = start_worker(home)
    worker.wait_for("tasks.add")
    yield home
    home.close()


@pytest.mark.parametrize("case", list(ERRORS))
def test_errors_are_sentences(error_home: PrivateHome, case: str) -> None:
    call, error, words = ERRORS[case]
    out = error_home.python(
        f"""
        from tasks import *
        try:
            {call}
        except Exception as exc:
            print(type(exc).__name__)
            print(exc)
        else:
            print("nothing was raised")
        """,
        timeout=40,
    )
    lines = out.stdout.splitlines()
    assert lines[0] == error, out.stdout + out.stderr
    assert words in "\n".join(lines[1:]), out.stdout
    assert (
        error_home.python("from tasks import add; print(add.delay(1, 2).result(timeout=20))").stdout.strip()
        == "3"
    )


def test_no_broker_and_wrong_token(home: PrivateHome) -> None:
    home.write("tasks.py", ADD)
    home.env |= {"PREFECT_LITE_BROKER_URL": "ws://127.0.0.1:9", "PREFECT_LITE_CONNECT_TIMEOUT_SECONDS": "1"}
    out = home.python("from tasks import add; add.delay(1, 2)", check=False)
    assert out.returncode == 1
    assert "BrokerUnreachable" in out.stderr.splitlines()[-1]
    assert "127.0.0.1:9" in out.stderr.splitlines()[-1]


def test_ctrl_c_ends_the_worker_cleanly_and_leaves_the_broker(home: PrivateHome) -> None:
    home.write("tasks.py", ADD)
    worker = start_worker(home)
    worker.wait_for("Connected")
    broker, valkey = home.broker_pid, home.valkey_pid
    worker.signal(signal.SIGINT)
    assert worker.wait(15) == 0
    assert "Traceback" not in worker.output
    assert (home.broker_pid, home.valkey_pid) == (broker, valkey)
