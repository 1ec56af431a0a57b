"""The embedded server: it keeps what it was given, ends when we end, and says what is in its way."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import asyncpg
import pytest

from tests.integration.embedded_postgres.servers import (
    Start,
    eventually,
    execute,
    first_line,
    is_running,
    spawn_owner,
)
from tollgate.embedded_postgres import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    PostgresInUse,
    PostgresStartFailed,
)


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


def sleeping_program(*, user: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], user=user)


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


async def test_sigterm_to_the_owner_takes_the_server_along(home: Path) -> None:
    with spawn_owner(home / "db") as owner:
        postmaster_pid = int(first_line(owner))

        owner.send_signal(signal.SIGTERM)

        await eventually(lambda: not is_running(postmaster_pid))
