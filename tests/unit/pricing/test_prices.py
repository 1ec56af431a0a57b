"""What each feature of the language charges, in tables that a bookkeeper can check with a pocket calculator.

Amounts are in microcents: 100,000,000 of them are one unit of the currency.
"""

from decimal import Decimal

import pytest

from pricing import parse_program
from tests.unit.pricing.programs import ADJUSTED, CHAT, GRADUATED, IMAGES, VOLUME, charge, price, program


@pytest.mark.money_bug(33)
@pytest.mark.parametrize(
    ("input_tokens", "cached", "output_tokens", "mode", "expected"),
    [
        (1_000_000, 0, 0, "normal", 15_000_000),
        (1_000_000, 1_000_000, 0, "normal", 3_000_000),
        (1_000_000, 400_000, 0, "normal", 9_000_000 + 1_200_000),
        (0, 0, 1_000_000, "normal", 30_000_000),
        (0, 0, 1_000_000, "thinking", 60_000_000),
        (1, 0, 0, "normal", 15),
        (0, 0, 0, "normal", 0),
        (10**24, 0, 0, "normal", 15 * 10**24),
    ],
)
def test_chat_charges_each_token_once_at_its_price(input_tokens, cached, output_tokens, mode, expected):
    usage = {
        "input_tokens": input_tokens,
        "cached_input_tokens": cached,
        "output_tokens": output_tokens,
        "mode": mode,
    }

    assert expected == parse_program(CHAT).price(usage).total_microcents


def test_a_key_with_a_default_may_be_missing():
    usage = {"input_tokens": 10, "output_tokens": 1, "mode": "normal"}

    assert parse_program(CHAT).price(usage).total_microcents == 10 * 15 + 30


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [(0, 0), (500, "1.5"), (1000, 3), (1001, "3.002"), (5000, 3 + 8), (6000, 3 + 8 + 1), (Decimal("0.5"), "0.0015")],
)
def test_graduated_tiers_price_each_part_in_its_own_tier(tokens, dollars):
    total = charge(GRADUATED).price({"input_tokens": tokens}).total_microcents

    assert Decimal(dollars) * 10**8 == total


@pytest.mark.parametrize(
    ("before", "tokens", "dollars"),
    [(0, 2000, 3 + 2), (500, 1000, "2.5"), (1000, 1000, 2), (4999, 2, "0.003"), (10**9, 1000, 1)],
)
def test_graduated_tiers_go_on_from_what_was_used_before(before, tokens, dollars):
    usage = {"input_tokens": tokens, "month_tokens": before}
    total = charge(GRADUATED + 'tier_after = "month_tokens"').price(usage).total_microcents

    assert Decimal(dollars) * 10**8 == total


@pytest.mark.parametrize(("tokens", "dollars"), [(0, 0), (1000, 3), (1001, "2.002"), (5000, 10), (6000, 6)])
def test_volume_tiers_price_the_whole_quantity_in_one_tier(tokens, dollars):
    total = charge(VOLUME).price({"input_tokens": tokens}).total_microcents

    assert Decimal(dollars) * 10**8 == total


@pytest.mark.parametrize(("input_tokens", "dollars"), [(200_000, "1.5"), (200_001, "3")])
def test_volume_tiers_by_another_key_price_output_by_the_length_of_the_input(input_tokens, dollars):
    body = """
    meter = "output_tokens"
    per = 1_000_000
    tiering = "volume"
    tier_by = "input_tokens"
    tiers = [{ up_to = 200_000, price = 15 }, { price = 30 }]
    """
    total = charge(body).price({"input_tokens": input_tokens, "output_tokens": 100_000}).total_microcents

    assert Decimal(dollars) * 10**8 == total


@pytest.mark.parametrize(
    ("size", "quality", "cents"),
    [("1024x1024", "hd", 8), ("1024x1024", "standard", 4), ("1024x1024", "", 4), ("1792x1024", "hd", 12)],
)
def test_the_first_case_that_fits_gives_the_price(size, quality, cents):
    usage = {"images": 3, "size": size, "quality": quality}

    assert 3 * cents * 10**6 == charge(IMAGES).price(usage).total_microcents


def test_an_explicit_price_of_zero_is_free():
    free = charge('meter = "images"\nprice = 0')

    assert free.price({"images": 5}).total_microcents == 0
    assert free.bound({"images": 5}) == 0


@pytest.mark.parametrize(
    ("meter", "usage", "quantity"),
    [
        ("ceil(audio_seconds / 60)", {"audio_seconds": Decimal("60.001")}, 2),
        ("ceil(audio_seconds / 60)", {"audio_seconds": 120}, 2),
        ("max(audio_seconds, 15)", {"audio_seconds": 3}, 15),
        ("min(pages, 10) * 2", {"pages": 40}, 20),
        ("images * steps", {"images": 2, "steps": 30}, 60),
        ("images * (2 if upscale else 1)", {"images": 3, "upscale": True}, 6),
        ("video_seconds if resolution == '720p' else video_seconds * 2", {"video_seconds": 5, "resolution": "4k"}, 10),
        ("1", {}, 1),
        ("trained_tokens / 3", {"trained_tokens": 3}, 1),
        ("a - b - c", {"a": 9, "b": 3, "c": 2}, 4),
        ("a - (b - c)", {"a": 9, "b": 3, "c": 2}, 8),
        ("2 + 3 * a", {"a": 4}, 14),
    ],
)
def test_meters_are_arithmetic_over_the_usage(meter, usage, quantity):
    assert quantity * 10**8 == charge(f'meter = "{meter}"\nprice = 1').price(usage).total_microcents


@pytest.mark.parametrize(
    ("when", "usage", "applies"),
    [
        ("a < 2", {"a": 1}, True),
        ("a < 2", {"a": 2}, False),
        ("a <= 2 and b", {"a": 2, "b": True}, True),
        ("a > 2 or not b", {"a": 2, "b": True}, False),
        ("a == 0.1 + 0.2", {"a": Decimal("0.3")}, True),
        ("a != 3", {"a": 3}, False),
        ("mode != 'fast'", {"mode": "slow"}, True),
        ("'fast' == mode", {"mode": "fast"}, True),
        ("hour >= 22 or hour < 6", {"hour": 23}, True),
        ("not (hour >= 22 or hour < 6)", {"hour": 23}, False),
        ("a / 3 == 1", {"a": 3}, True),
    ],
)
def test_conditions_decide_whether_a_charge_applies(when, usage, applies):
    both = program(f"""
    [[charges]]
    name = "fee"
    meter = "1"
    price = 1
    [[charges]]
    name = "c"
    meter = "1"
    price = 2
    when = "{when}"
    """)

    assert (3 if applies else 1) * 10**8 == both.price(usage).total_microcents


@pytest.mark.parametrize(("pages", "paid"), [(0, 0), (5, 0), (10, 0), (11, 1), (Decimal("10.5"), Decimal("0.5"))])
def test_a_free_allowance_is_taken_off_the_meter(pages, paid):
    assert paid * 10**8 == charge('meter = "pages"\nprice = 1\nfree = 10').price({"pages": pages}).total_microcents


@pytest.mark.parametrize(
    ("output_tokens", "priority", "plan", "dollars"),
    [
        (8, "normal", "free", 8),
        (8, "low", "free", 4),
        (4, "low", "free", 3),
        (0, "normal", "free", 3),
        (12, "normal", "pro", 10),
        (12, "normal", "free", 12),
        (22, "low", "pro", 10),
    ],
)
def test_adjustments_change_the_total_from_top_to_bottom(output_tokens, priority, plan, dollars):
    usage = {"output_tokens": output_tokens, "priority": priority, "plan": plan}

    assert dollars * 10**8 == price(ADJUSTED, **usage)


@pytest.mark.parametrize(
    ("rounding", "tokens", "microcents"),
    [
        ("", 1, 1),
        ("", 10, 3),
        ('mode = "down"', 1, 0),
        ('mode = "down"', 19, 4),
        ('mode = "half_up"', 1, 0),
        ('mode = "half_up"', 2, 1),
        ('mode = "half_even"', 2, 0),
        ('mode = "half_even"', 6, 2),
        ('mode = "half_even"', 3, 1),
        ('quantum = "cent"', 1, 1_000_000),
        ('quantum = "cent"', 4_000_000, 1_000_000),
        ('quantum = "cent"', 4_000_001, 2_000_000),
        ("quantum = 0.0001", 1, 10_000),
        ('mode = "down"\nquantum = "microcent"', 8, 2),
    ],
)
def test_the_total_is_rounded_once_as_the_program_says(rounding, tokens, microcents):
    quarter = program(f"""
    [[charges]]
    name = "a quarter of a microcent each"
    meter = "tokens"
    price = 0.0025
    per = 1_000_000
    [rounding]
    {rounding}
    """)

    assert microcents == quarter.price({"tokens": tokens}).total_microcents


@pytest.mark.money_bug(38)
def test_many_charges_below_a_microcent_are_rounded_together_and_not_each_up():
    thirds = "".join(f'[[charges]]\nname = "{n}"\nmeter = "tokens"\nprice = 0.00000001\nper = 3\n' for n in "abc")

    assert price(thirds, tokens=1) == 1


def test_no_text_of_a_program_becomes_source_code():
    """Keys, texts and names are bound as objects: the compiled functions hold no string of their own."""
    chat = parse_program(CHAT)

    for function in (chat._price, chat._bound):
        assert not any(isinstance(constant, str) for constant in function.__code__.co_consts)
        names = {*function.__code__.co_names, *function.__code__.co_varnames}
        assert not any(key in name for key in chat.keys for name in names)


def test_a_minimum_finer_than_a_microcent_is_rounded_with_the_total():
    least = program("""
    [[charges]]
    name = "c"
    meter = "tokens"
    price = 0
    [[adjustments]]
    name = "minimum"
    minimum = 0.000000001
    """)

    assert least.price({"tokens": 1}).total_microcents == 1


def test_numbers_are_exact_however_small_or_long():
    tiny = charge('meter = "tokens"\nprice = 0.000000000000000000000000000001\nper = 1_000_000')
    assert tiny.price({"tokens": 1}).total_microcents == 1
    assert tiny.price({"tokens": 10**30}).total_microcents == 10**2

    long = charge('meter = "seconds"\nprice = "0.123456789012345678901234567891"')
    assert long.price({"seconds": 10**30}).total_microcents == 123456789012345678901234567891 * 10**8

    seconds = charge('meter = "seconds"\nprice = 0.1')
    usage = {"seconds": Decimal("123456789012345678901234567890.5")}
    assert seconds.price(usage).total_microcents == 1234567890123456789012345678905 * 10**6
    assert seconds.bound(usage) == 1234567890123456789012345678905 * 10**6
    assert seconds.price(usage).lines[0].quantity == "123456789012345678901234567890.5"
