"""What a program does not take: usages that it refuses, so that none is free by mistake, and keys it never reads."""

from decimal import Decimal

import pytest

from pricing import UsageError, parse_program, unknown_meters
from tests.unit.pricing.programs import CHAT, IMAGES, charge, price


@pytest.mark.parametrize(
    ("changed", "key", "reason"),
    [
        ({"cached_input_tokens": 101}, "cached_input_tokens", "larger than its whole"),
        ({"input_tokens": -1}, "input_tokens", "negative"),
        ({"input_tokens": 1.0}, "input_tokens", "float"),
        ({"input_tokens": float("nan")}, "input_tokens", "float"),
        ({"input_tokens": True}, "input_tokens", "true or false"),
        ({"input_tokens": "100"}, "input_tokens", "text '100'"),
        ({"input_tokens": None}, "input_tokens", "null"),
        ({"input_tokens": [1]}, "input_tokens", "type list"),
        ({"input_tokens": Decimal("NaN")}, "input_tokens", "finite"),
        ({"input_tokens": Decimal("Infinity")}, "input_tokens", "finite"),
        ({"input_tokens": 10**31}, "input_tokens", "larger than anything"),
        ({"input_tokens": Decimal("1E-31")}, "input_tokens", "decimals"),
        ({"input_tokens": Decimal("1E-999999")}, "input_tokens", "decimals"),
        ({"input_tokens": Decimal("1." + "1" * 31)}, "input_tokens", "decimals"),
        ({"mode": "turbo"}, "mode", "'turbo' has no price; priced are 'thinking', 'normal'"),
        ({"mode": 1}, "mode", "text is needed"),
    ],
)
def test_a_usage_that_makes_no_sense_is_refused_by_price_and_by_bound(changed, key, reason):
    chat = parse_program(CHAT)
    usage = {"input_tokens": 100, "cached_input_tokens": 0, "output_tokens": 1, "mode": "normal"} | changed

    for interpretation in (chat.price, chat.bound):
        with pytest.raises(UsageError) as refused:
            interpretation(usage)
        assert key == refused.value.key
        assert reason in refused.value.reason


def test_a_missing_key_is_named():
    for interpretation in (parse_program(CHAT).price, parse_program(CHAT).bound):
        with pytest.raises(UsageError) as refused:
            interpretation({"input_tokens": 1, "mode": "normal"})
        assert refused.value.key == "output_tokens"


def test_every_key_is_needed_even_where_its_charge_does_not_apply():
    body = """
    [[charges]]
    name = "always"
    meter = "1"
    price = 1
    [[charges]]
    name = "sometimes"
    meter = "images"
    price = 1
    when = "audio"
    """
    with pytest.raises(UsageError, match="images: is missing"):
        price(body, audio=False)


@pytest.mark.parametrize("tiering", ["graduated", "volume"])
def test_a_quantity_beyond_a_last_tier_that_ends_is_refused(tiering):
    limited = charge(f'meter = "pages"\ntiering = "{tiering}"\ntiers = [{{ up_to = 100, price = 1 }}]')

    assert limited.price({"pages": 100}).total_microcents == 100 * 10**8
    with pytest.raises(UsageError, match="pages: lies beyond the last tier of charge 'c'"):
        limited.price({"pages": 101})


def test_a_usage_that_fits_no_case_is_refused_and_never_free():
    with pytest.raises(UsageError, match="size, quality: no case of charge 'c' fits"):
        charge(IMAGES).price({"images": 3, "size": "1792x1024", "quality": "standard"})


@pytest.mark.money_bug(39)
def test_a_usage_to_which_no_charge_applies_is_refused_and_never_free():
    fast = charge('meter = "images"\nprice = 1\nwhen = "mode == \'fast\'"')

    with pytest.raises(UsageError, match="mode: no charge of the program applies"):
        fast.price({"images": 1, "mode": "slow"})


def test_a_meter_that_may_be_a_difference_is_refused_below_zero():
    capped = charge('meter = "min(a - b, 5)"\nprice = 1')

    assert capped.price({"a": 9, "b": 1}).total_microcents == 5 * 10**8
    with pytest.raises(UsageError, match="negative"):
        capped.price({"a": 1, "b": 9})


@pytest.mark.money_bug(36)
def test_usage_keys_that_count_something_but_are_not_read_are_reported():
    usage = {
        "input_tokens": 5,
        "reasoning_tokens": 7,
        "cache_write_tokens": 3,
        "audio_seconds": Decimal("1.5"),
        "images": 2,
        "pages": 0,
        "hour": 12,
        "size": "1024x1024",
        "image_tokens": Decimal("sNaN"),
        "video_seconds": "5",
    }
    expected = ("cache_write_tokens", "audio_seconds", "images", "image_tokens")

    assert expected == unknown_meters(parse_program(CHAT), usage)
