"""``tollgate prices``: everything about price programs, from a file on disk to the book."""

from typing import Any

from tollgate import cli_backtest, cli_price_book, cli_price_files, cli_price_import, cli_rerate


def add_commands(commands: Any) -> None:
    """Add ``prices`` and its commands to the parser."""
    prices = commands.add_parser("prices", help="write, test, publish and audit price programs")
    subcommands = prices.add_subparsers(required=True, metavar="COMMAND")
    for group in (cli_price_files, cli_price_import, cli_price_book, cli_backtest, cli_rerate):
        group.add_commands(subcommands)
