"""What each feature of the language charges, in tables that a bookkeeper can check with a pocket calculator.

Amounts are in microcents: 100,000,000 of them are one unit of the currency.
"""

from decimal import Decimal

import pytest

from pricing import UsageError, parse_program, unknown_meters

CHAT = """
id = "qwen3-32b"
currency = "USD"
not_charged = ["reasoning_tokens"]

[defaults]
cached_input_tokens = 0

[values]
mode = ["thinking", "normal"]

[[charges]]
name = "input"
meter = "input_tokens - cached_input_tokens"
price = 0.15
per = 1_000_000

[[charges]]
name = "cached input"
meter = "cached_input_tokens"
price = 0.03
per = 1_000_000

[[charges]]
name = "output"
meter = "output_tokens"
prices = [
  { when = "mode == 'thinking'", price = 0.60 },
  { price = 0.30 },
]
per = 1_000_000
"""


def program(body: str):
    return parse_program(f'id = "p"\ncurrency = "USD"\n{body}')


def charge(body: str):
    return program(f'[[charges]]\nname = "c"\n{body}')


def price(body: str, **usage) -> int:
    return program(body).price(usage).total_microcents


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


GRADUATED = """
meter = "input_tokens"
per = 1000
tiering = "graduated"
tiers = [
  { up_to = 1000, price = 3 },
  { up_to = 5000, price = 2 },
  { price = 1 },
]
"""


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


VOLUME = GRADUATED.replace("graduated", "volume")


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


@pytest.mark.parametrize("tiering", ["graduated", "volume"])
def test_a_quantity_beyond_a_last_tier_that_ends_is_refused(tiering):
    limited = charge(f'meter = "pages"\ntiering = "{tiering}"\ntiers = [{{ up_to = 100, price = 1 }}]')

    assert limited.price({"pages": 100}).total_microcents == 100 * 10**8
    with pytest.raises(UsageError, match="pages: lies beyond the last tier of charge 'c'"):
        limited.price({"pages": 101})


IMAGES = """
meter = "images"
prices = [
  { when = "size == '1024x1024' and quality == 'hd'", price = 0.08 },
  { when = "size == '1024x1024'", price = 0.04 },
  { when = "size == '1792x1024' and quality == 'hd'", price = 0.12 },
]
"""


@pytest.mark.parametrize(
    ("size", "quality", "cents"),
    [("1024x1024", "hd", 8), ("1024x1024", "standard", 4), ("1024x1024", "", 4), ("1792x1024", "hd", 12)],
)
def test_the_first_case_that_fits_gives_the_price(size, quality, cents):
    usage = {"images": 3, "size": size, "quality": quality}

    assert 3 * cents * 10**6 == charge(IMAGES).price(usage).total_microcents


def test_a_usage_that_fits_no_case_is_refused_and_never_free():
    with pytest.raises(UsageError, match="size, quality: no case of charge 'c' fits"):
        charge(IMAGES).price({"images": 3, "size": "1792x1024", "quality": "standard"})


@pytest.mark.money_bug(39)
def test_a_usage_to_which_no_charge_applies_is_refused_and_never_free():
    fast = charge('meter = "images"\nprice = 1\nwhen = "mode == \'fast\'"')

    with pytest.raises(UsageError, match="mode: no charge of the program applies"):
        fast.price({"images": 1, "mode": "slow"})


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


ADJUSTED = """
[[charges]]
name = "output"
meter = "output_tokens"
price = 1

[[adjustments]]
name = "low priority"
when = "priority == 'low'"
factor = 0.5

[[adjustments]]
name = "minimum charge"
minimum = 3

[[adjustments]]
name = "maximum charge"
when = "plan == 'pro'"
maximum = 10
"""


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


def test_no_text_of_a_program_becomes_source_code():
    """Keys, texts and names are bound as objects: the compiled functions hold no string of their own."""
    chat = parse_program(CHAT)

    for function in (chat._price, chat._bound):
        assert not any(isinstance(constant, str) for constant in function.__code__.co_consts)
        names = {*function.__code__.co_names, *function.__code__.co_varnames}
        assert not any(key in name for key in chat.keys for name in names)


def test_a_meter_that_may_be_a_difference_is_refused_below_zero():
    capped = charge('meter = "min(a - b, 5)"\nprice = 1')

    assert capped.price({"a": 9, "b": 1}).total_microcents == 5 * 10**8
    with pytest.raises(UsageError, match="negative"):
        capped.price({"a": 1, "b": 9})


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
