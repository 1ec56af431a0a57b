"""What an answer costs, worked out from the published price texts by hand."""

import tomllib
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

CENTS_PER_DOLLAR = 100
MICROCENT = Decimal("0.000001")


@cache
def _dollars_per_token(model: str) -> dict[str, Decimal]:
    text = resources.files("tollgate").joinpath("demo_prices", f"{model}.toml").read_text()
    charges = tomllib.loads(text, parse_float=Decimal)["charges"]
    return {charge["name"]: Decimal(charge["price"]) / charge["per"] for charge in charges}


def price_in_cents(model: str, *, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Decimal:
    """The exact price; every price of the demo is whole microcents a token, so that nothing is ever rounded."""
    price = _dollars_per_token(model)
    cents = CENTS_PER_DOLLAR * (
        (input_tokens - cached_input_tokens) * price["input"]
        + cached_input_tokens * price["cached input"]
        + output_tokens * price["output"]
    )
    assert cents == cents.quantize(MICROCENT)
    return cents


def price_of_usage(model: str, usage: dict[str, Any]) -> Decimal:
    """The price of a ``usage`` object as the customer read it."""
    return price_in_cents(
        model,
        input_tokens=usage["prompt_tokens"],
        cached_input_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        output_tokens=usage["completion_tokens"],
    )
