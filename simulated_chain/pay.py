"""``python -m simulated_chain.pay``: make coins and send them, as somebody who tops up would."""

import argparse
import sys
from decimal import Decimal

from simulated_chain.rpc import RpcError, ask
from simulated_chain.token import DECIMALS, mint


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulated_chain.pay")
    parser.add_argument("--url", required=True, help="of the node")
    parser.add_argument("--token", required=True, help="the coin's contract")
    parser.add_argument("--to", required=True, help="the address")
    parser.add_argument("--usdc", type=Decimal, required=True)
    parser.add_argument("--blocks", type=int, default=0, help="that are made after it, for confirmations")
    return parser.parse_args()


def main() -> None:
    """Send them, and say in which transaction."""
    arguments = _arguments()
    try:
        transaction = mint(arguments.url, arguments.token, arguments.to, int(arguments.usdc.scaleb(DECIMALS)))
        if arguments.blocks:
            ask(arguments.url, "anvil_mine", hex(arguments.blocks))
    except (RpcError, OSError) as error:
        sys.exit(f"simulated_chain: {error}")
    sys.stdout.write(transaction + "\n")


if __name__ == "__main__":
    main()
