"""What a customer's only request cost, as its receipt, the account and the backend's journal tell it: all the same."""

from typing import Any

from tests.acceptance.customers import MODEL, Customer
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import Generated


async def made_for(customer: Customer, request_id: str) -> Generated:
    made = await customer.demo.generated(request_id)
    assert made is not None
    return made


async def assert_free(customer: Customer, *, outcome: str) -> Any:
    """The customer's only request cost nothing. Gives its receipt."""
    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id, status="voided")
    account = await customer.when_no_hold_is_open()
    assert (receipt["status"], receipt["outcome"], receipt["charged_cents"]) == ("voided", outcome, 0)
    assert (receipt["charges"], receipt["served"].get("delivered_tokens", 0)) == ([], 0)
    assert account["spent_cents"] == 0
    return receipt


async def assert_paid(customer: Customer, *, tokens: int, outcome: str) -> Any:
    """The customer's only request cost its prompt, as the backend counted it, and so many tokens. Gives its receipt."""
    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id)
    account = await customer.when_no_hold_is_open()
    made = await made_for(customer, receipt["request_id"])
    assert (receipt["status"], receipt["outcome"]) == ("settled", outcome)
    assert receipt["served"]["delivered_tokens"] == tokens
    assert tokens <= receipt["served"]["generated_tokens"] <= made.completion_tokens
    price = price_in_cents(MODEL, input_tokens=made.prompt_tokens, output_tokens=tokens)
    assert receipt["charged_cents"] == account["spent_cents"] == price
    assert (await customer.account())["debt_cents"] == 0
    return receipt
