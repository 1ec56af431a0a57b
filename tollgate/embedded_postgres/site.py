"""Where the cluster is, whose it is, and the private files beside it."""

import os
import pwd
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from tollgate.embedded_postgres.binaries import SHARED_ROOT, reachable_binaries
from tollgate.embedded_postgres.errors import EmbeddedPostgresError
from tollgate.embedded_postgres.process import Account, can_run

UNPRIVILEGED_USER: Final = "nobody"
RELOCATED_PREFIX: Final = "tollgate-data-"


class Site(msgspec.Struct, frozen=True):
    """What is decided before anything is started. ``link`` is the symbolic link that leads to the cluster, if any."""

    account: Account
    bin_dir: Path
    data_dir: Path
    link: Path | None

    def beside(self, kind: str) -> Path:
        """The file of this kind that stands beside the cluster."""
        return self.data_dir.with_name(f"{self.data_dir.name}.{kind}")

    def has_cluster(self) -> bool:
        """Whether initdb has been there."""
        return _is_cluster(self.data_dir)


def prepare_site(asked_for: Path) -> Site:
    """Decide who runs the server and where; makes parent directories, a copy of the binaries and a link as needed."""
    place = asked_for.absolute()
    account = _server_account(place)
    data_dir = _reachable_data_dir(place, account)
    link = place if place.is_symlink() else None
    return Site(account=account, bin_dir=reachable_binaries(account), data_dir=data_dir, link=link)


def _is_cluster(data_dir: Path) -> bool:
    return (data_dir / "PG_VERSION").exists()


def _server_account(data_dir: Path) -> Account:
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid(), switch=False)
    if _is_cluster(data_dir) and (owner := data_dir.stat()).st_uid != 0:
        return Account(uid=owner.st_uid, gid=owner.st_gid, switch=True)
    nobody = pwd.getpwnam(UNPRIVILEGED_USER)
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid, switch=True)


def _reachable_data_dir(place: Path, account: Account) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    data_dir = place.resolve()
    if place.is_symlink() and not data_dir.parent.is_dir():
        raise EmbeddedPostgresError(f"{place} points to {data_dir}, which is gone; remove the link to begin anew")
    if can_run(account, "/bin/sh", "-c", 'test -x "$1"', "sh", str(data_dir.parent)):
        return data_dir
    if place.is_symlink() or (place.exists() and any(place.iterdir())):
        raise EmbeddedPostgresError(f"{data_dir} is out of reach of uid {account.uid}, which must run the server")
    return _relocated(place)


def _relocated(place: Path) -> Path:
    """A new place below ``/var/tmp``, with a link to it: whoever deletes the directory asked for begins anew."""
    if place.exists():
        place.rmdir()
    home = Path(tempfile.mkdtemp(prefix=RELOCATED_PREFIX, dir=SHARED_ROOT))
    home.chmod(0o711)
    place.symlink_to(home / place.name)
    return home / place.name


def open_beside(site: Site, kind: str, flags: int = 0) -> int:
    """A descriptor, for reading and writing, of a private file beside the cluster that belongs to the server's user.

    Root must neither follow a link nor trust a file that somebody else put there.
    """
    path = site.beside(kind)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    if os.fstat(descriptor).st_uid not in (os.geteuid(), site.account.uid):
        os.close(descriptor)
        raise EmbeddedPostgresError(f"{path} belongs to another user")
    if site.account.switch:
        os.fchown(descriptor, site.account.uid, site.account.gid)
    os.fchmod(descriptor, 0o600)
    return descriptor


def password_of(site: Site) -> str:
    """The superuser's password, made up on first use; to be called under the lock."""
    with os.fdopen(open_beside(site, "password"), "r+") as file:
        if password := file.read():
            return password
        if site.has_cluster():
            raise EmbeddedPostgresError(f"{site.beside('password')} is lost: nobody can log in to {site.data_dir}")
        password = secrets.token_urlsafe(24)
        file.write(password)
        return password


def delete_site(site: Site) -> None:
    """Delete the cluster, the files beside it and the link to it; to be called under the lock."""
    if not site.has_cluster():
        raise EmbeddedPostgresError(f"{site.data_dir} is not a Postgres cluster, and is not deleted")
    shutil.rmtree(site.data_dir)
    for kind in ("password", "log", "lock"):
        site.beside(kind).unlink(missing_ok=True)
    if site.link:
        site.link.unlink(missing_ok=True)
    home = site.data_dir.parent
    if home.parent == SHARED_ROOT and home.name.startswith(RELOCATED_PREFIX):
        home.rmdir()
