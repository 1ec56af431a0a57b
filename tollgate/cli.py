"""The command line."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from accounts import AccountsError
from ledger import LedgerError
from payments import PaymentsError
from pricing import PricingError
from tollgate import cli_accounts, cli_books, cli_payments, cli_prices, cli_reconcile, cli_serve
from tollgate.embedded_postgres import EmbeddedPostgresError
from tollgate.logging import log_trouble_to_stderr
from tollgate.migrate import MigrationError
from tollgate.settings import SettingsError

#: What a person can mend; anything else is a bug and shows its traceback.
EXPECTED = (
    AccountsError, EmbeddedPostgresError, LedgerError, MigrationError, PaymentsError, PricingError, SettingsError,
    OSError, ValueError,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits 0 when it did what it says, 1 when it found or met something wrong, 2 on bad usage."""
    parser = argparse.ArgumentParser(prog="tollgate", description="Billing and metering ledger for GPU inference.")
    parser.add_argument("--config", type=Path, help="settings file (default: TOLLGATE_CONFIG, else tollgate.toml)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (cli_serve, cli_books, cli_accounts, cli_payments, cli_reconcile, cli_prices):
        group.add_commands(commands)
    options = parser.parse_args(arguments)
    log_trouble_to_stderr()
    try:
        status = options.run(options)
        if asyncio.iscoroutine(status):
            status = asyncio.run(status)
    except EXPECTED as error:
        print(f"tollgate: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        os._exit(130)
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
