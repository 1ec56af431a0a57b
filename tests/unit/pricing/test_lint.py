"""What a second pair of eyes is asked to look at. In the texts below ‸ stands where it must point."""

import pytest

from pricing import parse_program
from pricing.lint import suspicions
from tests.unit.pricing.programs import ADJUSTED, CHAT, GRADUATED, IMAGES

HEAD = 'id = "p"\ncurrency = "USD"\n'
TOKENS = HEAD + '[[charges]]\nname = "c"\nmeter = "input_tokens"\n'
PIECES = HEAD + '[[charges]]\nname = "c"\nmeter = "images"\n'
ONE = PIECES + "price = 1\n"
MODES = '[values]\nmode = ["normal", "thinking"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOKENS + "price = ‸0.15", "one of input_tokens costs 0.15 USD: is 'per' missing?"),
        (TOKENS.replace("input_tokens", "characters") + "price = ‸15\nper = 1000", "one of characters costs 0.015 USD"),
        (TOKENS.replace("input_tokens", "input_tokens * 1000") + "price = ‸15\nper = 1_000_000", "costs 0.015 USD"),
        (TOKENS + "price = ‸0.00000015\nper = 1_000_000", "a million input_tokens cost 0.00000015 USD"),
        (
            TOKENS + 'tiering = "volume"\nper = 1_000_000\ntiers = [{ up_to = 5, price = 1 }, { price = ‸2000 }]',
            "costs 0.002 USD",
        ),
        (
            TOKENS + "per = 1_000_000\nprices = [{ when = \"m == 'x'\", price = ‸2000 }, { price = 1 }]",
            "costs 0.002 USD",
        ),
    ],
)
def test_a_price_off_by_a_power_of_ten_is_suspicious(text, message):
    assert_suspected(text, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "when = ‸\"mode == 'fast'\"\n" + MODES, "mode is never 'fast'"),
        (ONE + "when = ‸\"mode == 'normal' and mode == 'thinking'\"", "charge 'c' never applies"),
        (ONE + 'when = ‸"hour > 23"', "charge 'c' never applies"),
        (ONE + 'when = ‸"weekday < 1"', "charge 'c' never applies"),
        (ONE + 'when = ‸"audio and not audio"', "charge 'c' never applies"),
        (ONE + 'when = ‸"images > 5 and images * 2 <= 10"', "charge 'c' never applies"),
        (
            ONE + '[[adjustments]]\nname = "night"\nfactor = 2\nwhen = ‸"hour > 22 and hour < 6"',
            "'night' never applies",
        ),
        (
            PIECES + 'prices = [{ when = "images <= 9", price = 1 }, ‸{ when = "images <= 5", price = 2 }]',
            "this case of charge 'c' is never the first to fit",
        ),
        (
            PIECES + "prices = [\n  { when = \"mode == 'normal'\", price = 1 },\n"
            "  { when = \"mode == 'thinking'\", price = 1 },\n  ‸{ price = 2 },\n]\n" + MODES,
            "this case of charge 'c' is never the first to fit",
        ),
        (
            PIECES + 'when = "audio"\nprices = [{ when = "audio", price = 1 }, ‸{ price = 2 }]',
            "this case of charge 'c' is never the first to fit",
        ),
    ],
)
def test_what_can_never_apply_is_suspicious(text, message):
    assert_suspected(text, message)


def assert_suspected(text: str, message: str) -> None:
    before = text[: text.index("‸")]

    found = suspicions(parse_program(text.replace("‸", "")))

    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert [each for each in found if message in each.message and (each.line, each.column) == place] != []


@pytest.mark.parametrize(
    "text",
    [
        CHAT,
        HEAD + ADJUSTED.replace("price = 1", "price = 1\nper = 1_000_000"),
        PIECES.replace('"images"', '"pages"') + GRADUATED.partition("per")[2].partition("\n")[2],
        HEAD + '[[charges]]\nname = "c"\n' + IMAGES,
        ONE + "price = 100\n".replace("price = 100\n", "free = 2\n"),
        TOKENS + "price = 0",
        TOKENS + "price = 1000\nper = 1_000_000",
        # 32,000.5 lies between the two.
        ONE + 'when = "images > 32_000 and images < 32_001"',
        ONE + 'when = "hour >= 22 or hour < 6"',
        # Two numbers compared with each other, or parts that are not linear: nothing is said without knowing.
        ONE + 'when = "images > 5 and images < 5 and a > b"',
        ONE + 'when = "ceil(images) < images"',
        # More combinations than are tried.
        ONE + f'when = "images < 0 and {" and ".join(f"flag_{n}" for n in range(20))}"',
    ],
)
def test_a_program_as_it_should_be_is_not_suspicious(text):
    assert suspicions(parse_program(text)) == []


def test_suspicions_come_in_the_order_of_the_text():
    text = TOKENS + 'price = 1\nwhen = "hour > 23"\n[[charges]]\nname = "d"\nmeter = "output_tokens"\nprice = 1\n'

    assert [(each.line, each.column) for each in suspicions(parse_program(text))] == [(6, 9), (7, 8), (11, 9)]
