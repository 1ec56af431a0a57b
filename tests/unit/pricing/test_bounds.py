"""What a hold sets aside while part of the usage is not known: never too little, and no more than it must."""

from decimal import Decimal

import pytest

from pricing import Span, UsageError, parse_program
from tests.unit.pricing.programs import ADJUSTED, CHAT, GRADUATED, IMAGES, VOLUME, charge, program

UNKNOWN_MODE = frozenset({"thinking", "normal"})


@pytest.mark.parametrize(
    ("cached", "output_tokens", "mode", "expected"),
    [
        (0, 100, "normal", 1000 * 15 + 100 * 30),
        (0, Span(0, 100), "normal", 1000 * 15 + 100 * 30),
        (0, Span(0, 100), "thinking", 1000 * 15 + 100 * 60),
        (0, Span(0, 100), UNKNOWN_MODE, 1000 * 15 + 100 * 60),
        # A token may be cached or not, but is never priced as both.
        (Span(0, 1000), 100, "normal", 1000 * 15 + 100 * 30),
        (Span(400, 1000), 100, "normal", 600 * 15 + 400 * 3 + 100 * 30),
        (Span(Decimal("999.5"), 1000), 0, "normal", Decimal("0.5") * 15 + Decimal("999.5") * 3),
        # Beyond the whole no usage could be priced: that part of the box does not count.
        (Span(0, 5000), 0, "normal", 1000 * 15),
    ],
)
def test_bound_of_a_chat_is_its_dearest_possible_price(cached, output_tokens, mode, expected):
    box = {"input_tokens": 1000, "cached_input_tokens": cached, "output_tokens": output_tokens, "mode": mode}

    assert expected == parse_program(CHAT).bound(box)


def test_a_token_that_may_be_dearer_cached_is_held_at_the_dearer_price():
    writes = program("""
    [[charges]]
    name = "input"
    meter = "input_tokens - cache_write_tokens"
    price = 4
    [[charges]]
    name = "cache write"
    meter = "cache_write_tokens"
    price = 5
    """)

    assert writes.bound({"input_tokens": Span(0, 10), "cache_write_tokens": Span(0, 10)}) == 50 * 10**8


@pytest.mark.money_bug(9)
def test_a_box_in_which_nothing_can_be_priced_is_refused():
    box = {"input_tokens": Span(0, 10), "cached_input_tokens": 11, "output_tokens": 0, "mode": "normal"}

    with pytest.raises(UsageError, match="cached_input_tokens"):
        parse_program(CHAT).bound(box)


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (Span(2, 1), "low end above its high end"),
        (Span(-2, -1), "negative"),
        (Span(0, Decimal("NaN")), "finite"),
        (Span(0, 1.5), "float"),
        (Span(0, True), "true or false"),
        (frozenset({"1"}), "frozenset"),
    ],
)
def test_a_span_that_makes_no_sense_is_refused(span, reason):
    with pytest.raises(UsageError, match=reason):
        charge('meter = "pages"\nprice = 1').bound({"pages": span})


def test_what_is_below_zero_in_a_span_is_cut_off():
    assert charge('meter = "pages"\nprice = 1').bound({"pages": Span(-5, 5)}) == 5 * 10**8
    assert charge('meter = "5 - pages"\nprice = 1').bound({"pages": Span(-5, 5)}) == 5 * 10**8


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [
        (Span(0, 500), "1.5"),
        (Span(0, 1000), 3),
        (Span(0, 1500), "3"),  # 1,500 cost 2 × 1.5 = 3.00, as much as 1,000
        (Span(0, 1200), "3"),  # 1,200 cost 2.40, less than 1,000
        (Span(1100, 1200), "2.4"),
        (Span(0, 6000), 10),  # 5,000 at 2, dearer than 6,000 at 1
        (Span(5001, 6000), 6),
        (Span(0, 20_000), 20),
    ],
)
def test_volume_tiers_are_bounded_by_their_dearest_quantity_in_reach(tokens, dollars):
    assert Decimal(dollars) * 10**8 == charge(VOLUME).bound({"input_tokens": tokens})


@pytest.mark.parametrize(
    ("before", "tokens", "dollars"),
    [
        (0, Span(0, 2000), 3 + 2),
        (500, Span(0, 1000), "2.5"),
        (Span(0, 10**9), 1000, 3),  # where in the month is open: the dearest tier
        (Span(2000, 10**9), 1000, 2),
    ],
)
def test_graduated_tiers_are_bounded_by_their_dearest_start(before, tokens, dollars):
    box = {"input_tokens": tokens, "month_tokens": before}

    assert Decimal(dollars) * 10**8 == charge(GRADUATED + 'tier_after = "month_tokens"').bound(box)


def test_graduated_tiers_that_end_hold_no_more_than_is_left_of_them():
    limited = charge("""
    meter = "pages"
    tiering = "graduated"
    tier_after = "month"
    tiers = [{ up_to = 100, price = 1 }]
    """)

    assert limited.bound({"pages": Span(0, 1000), "month": Span(60, 70)}) == 40 * 10**8


@pytest.mark.parametrize(
    ("tokens", "dollars"),
    [(Span(0, 100), 100), (Span(0, 200), 200 * 5), (Span(101, 200), 200 * 5), (Span(201, 300), 300)],
)
def test_cases_that_are_not_decided_are_held_at_the_dearest_that_may_fit(tokens, dollars):
    by_length = charge("""
    meter = "tokens"
    prices = [
      { when = "tokens <= 100", price = 1 },
      { when = "tokens <= 200", price = 5 },
      { price = 1 },
    ]
    """)

    assert by_length.bound({"tokens": tokens}) == dollars * 10**8


@pytest.mark.parametrize(
    ("meter", "box", "most"),
    [
        ("(a - 8) * (b - 8)", {"a": Span(0, 10), "b": Span(0, 10)}, 64),
        ("(a - 8) * (b - 8)", {"a": Span(9, 10), "b": Span(10, 12)}, 8),
        ("(a - 8) * b", {"a": Span(0, 10), "b": Span(0, 10)}, 20),
        ("a * b", {"a": Span(2, 3), "b": Span(4, 5)}, 15),
        ("max(a - b, 0)", {"a": Span(2, 9), "b": Span(4, 5)}, 5),
        ("min(a, b) * 2", {"a": Span(2, 9), "b": Span(4, 5)}, 10),
        ("10 - ceil(a / 4)", {"a": Span(3, 9)}, 9),
        ("a if b > 3 else 10 - a", {"a": Span(0, 4), "b": Span(0, 3)}, 10),
        ("a if b > 3 else 10 - a", {"a": Span(0, 4), "b": Span(4, 5)}, 4),
        ("a if b > 3 else 10 - a", {"a": Span(6, 7), "b": Span(3, 4)}, 7),
        ("a - a", {"a": Span(0, 9)}, 0),
        ("(a + b) / 2 - b / 2", {"a": Span(0, 9), "b": Span(0, 9)}, "4.5"),
    ],
)
def test_the_most_that_a_meter_can_be(meter, box, most):
    assert charge(f'meter = "{meter}"\nprice = 1').bound(box) == Decimal(most) * 10**8


NEVER, PERHAPS, ALWAYS = (10, 10), (20, 10), (20, 5)


@pytest.mark.parametrize(
    ("when", "hour", "bounds"),
    [
        ("hour == 5", Span(6, 9), NEVER),
        ("hour == 5", Span(0, 4), NEVER),
        ("hour == 5", Span(5, 9), PERHAPS),
        ("hour == 5", Span(0, 5), PERHAPS),
        ("hour == 5", Span(5, 5), ALWAYS),
        ("hour != 5", Span(5, 5), NEVER),
        ("hour != 5", Span(5, 9), PERHAPS),
        ("hour != 5", Span(6, 9), ALWAYS),
        ("hour < 5", Span(5, 6), NEVER),
        ("hour < 5", Span(4, 5), PERHAPS),
        ("hour < 5", Span(3, 4), ALWAYS),
        ("hour <= 5", Span(6, 7), NEVER),
        ("hour <= 5", Span(5, 6), PERHAPS),
        ("hour <= 5", Span(4, 5), ALWAYS),
        ("hour > 5", Span(4, 5), NEVER),
        ("hour > 5", Span(5, 6), PERHAPS),
        ("hour >= 5", Span(4, 5), PERHAPS),
        ("hour >= 5", Span(5, 6), ALWAYS),
        ("not hour > 5", Span(6, 9), NEVER),
        ("not hour > 5", Span(5, 9), PERHAPS),
        ("not hour > 5", Span(0, 5), ALWAYS),
        ("hour > 2 and hour < 8", Span(8, 9), NEVER),
        ("hour > 2 and hour < 8", Span(2, 5), PERHAPS),
        ("hour > 2 and hour < 8", Span(3, 7), ALWAYS),
        ("hour < 2 or hour > 8", Span(2, 8), NEVER),
        ("hour < 2 or hour > 8", Span(0, 9), PERHAPS),
        ("hour < 2 or hour > 8", Span(0, 1), ALWAYS),
        ("min(hour, 5) == 5", Span(5, 9), ALWAYS),
        ("ceil(hour / 2) > 2", Span(3, 4), NEVER),
        ("ceil(hour / 2) > 2", Span(4, 5), PERHAPS),
        ("(1 if hour > 5 else 3) > 2", Span(6, 9), NEVER),
        ("(1 if hour > 5 else 3) > 2", Span(5, 9), PERHAPS),
        ("(1 if hour > 5 else 3) > 2", Span(0, 5), ALWAYS),
    ],
)
def test_a_condition_over_a_span_holds_never_perhaps_or_always(when, hour, bounds):
    """A doubling shows whether the condition may hold, a halving whether it must."""

    def adjusted(factor: str):
        return program(f"""
        [[charges]]
        name = "request"
        meter = "10"
        price = 1
        [[adjustments]]
        name = "window"
        when = "{when}"
        factor = {factor}
        """)

    found = tuple(adjusted(factor).bound({"hour": hour}) // 10**8 for factor in ("2", "0.5"))

    assert found == bounds


def test_a_price_by_the_length_of_the_input_is_held_at_the_dearest_length_in_reach():
    long_context = program("""
    [[charges]]
    name = "input"
    meter = "input_tokens - cached_input_tokens"
    tiering = "volume"
    tier_by = "input_tokens"
    tiers = [{ up_to = 200_000, price = 2 }, { price = 4 }]
    [[charges]]
    name = "cached"
    meter = "cached_input_tokens"
    tiering = "volume"
    tier_by = "input_tokens"
    tiers = [{ up_to = 200_000, price = 0.2 }, { price = 0.4 }]
    """)
    cached = Span(0, 300_000)

    assert long_context.bound({"input_tokens": Span(0, 200_000), "cached_input_tokens": cached}) == 200_000 * 2 * 10**8
    assert long_context.bound({"input_tokens": Span(0, 300_000), "cached_input_tokens": cached}) == 300_000 * 4 * 10**8


def test_cases_with_an_open_text_are_bounded_by_the_dearest_that_may_fit():
    sizes = frozenset({"1024x1024", "1792x1024"})

    assert charge(IMAGES).bound({"images": 3, "size": "1024x1024", "quality": frozenset({"hd", "x"})}) == 24 * 10**6
    assert charge(IMAGES).bound({"images": 3, "size": sizes, "quality": "hd"}) == 36 * 10**6
    # One of the sizes has no standard quality: it would be refused, and holds nothing.
    assert charge(IMAGES).bound({"images": 3, "size": sizes, "quality": "standard"}) == 12 * 10**6
    with pytest.raises(UsageError, match="no case"):
        charge(IMAGES).bound({"images": 3, "size": frozenset({"a", "b"}), "quality": "hd"})


@pytest.mark.parametrize(
    ("tokens", "priority", "plan", "dollars"),
    [
        (Span(0, 8), "low", "free", 4),
        (Span(0, 8), frozenset({"low", "normal"}), "free", 8),
        (Span(0, 2), "normal", "free", 3),
        (Span(0, 99), "normal", "pro", 10),
        (Span(0, 99), "normal", frozenset({"pro", "free"}), 99),
    ],
)
def test_an_adjustment_that_may_hold_is_taken_the_dearer_way(tokens, priority, plan, dollars):
    box = {"output_tokens": tokens, "priority": priority, "plan": plan}

    assert dollars * 10**8 == program(ADJUSTED).bound(box)


@pytest.mark.parametrize(
    ("hour", "factor", "dollars"),
    [(Span(0, 23), "0.5", 10), (Span(22, 23), "0.5", 5), (Span(0, 23), "3", 30), (Span(8, 9), "3", 10)],
)
def test_a_time_window_that_may_or_may_not_hold_is_taken_the_dearer_way(hour, factor, dollars):
    nightly = program(f"""
    [[charges]]
    name = "page"
    meter = "10"
    price = 1
    [[adjustments]]
    name = "night"
    when = "hour >= 22"
    factor = {factor}
    """)

    assert dollars * 10**8 == nightly.bound({"hour": hour})


@pytest.mark.parametrize(
    ("limit", "hour", "dollars"),
    [
        ("maximum = 5", Span(0, 23), 10),
        ("maximum = 5", Span(22, 23), 5),
        ("minimum = 20", Span(0, 23), 20),
        ("minimum = 20", Span(0, 21), 10),
    ],
)
def test_a_limit_that_may_or_may_not_hold_is_taken_the_dearer_way(limit, hour, dollars):
    nightly = program(f"""
    [[charges]]
    name = "page"
    meter = "10"
    price = 1
    [[adjustments]]
    name = "night"
    when = "hour >= 22"
    {limit}
    """)

    assert nightly.bound({"hour": hour}) == dollars * 10**8


def test_a_charge_that_may_not_apply_never_lowers_the_bound():
    credit = program("""
    [[charges]]
    name = "a"
    meter = "a"
    price = 1
    [[charges]]
    name = "b beyond a"
    meter = "b - a"
    price = 2
    when = "hour >= 22"
    """)
    box = {"a": Span(0, 10), "b": 1, "hour": Span(0, 23)}

    assert credit.price({"a": 10, "b": 1, "hour": 0}).total_microcents == 10 * 10**8
    assert credit.bound(box) == (10 + 2) * 10**8


def test_charges_that_contradict_each_other_are_bounded_at_zero():
    """Each meter alone could be above zero somewhere in the box; together they cannot."""
    never = program("""
    [[charges]]
    name = "a"
    meter = "a - b - 1"
    price = 1
    [[charges]]
    name = "b"
    meter = "b - a - 1"
    price = 1
    """)

    assert never.bound({"a": Span(0, 9), "b": Span(0, 9)}) == 0


def test_a_box_that_lies_beyond_the_last_tier_is_refused():
    limited = charge("""
    meter = "a - b"
    tiering = "graduated"
    tier_after = "month"
    tiers = [{ up_to = 100, price = 1 }]
    """)

    assert limited.bound({"a": Span(0, 50), "b": Span(0, 50), "month": 90}) == 10 * 10**8
    with pytest.raises(UsageError, match="beyond the last tier"):
        limited.bound({"a": Span(0, 50), "b": Span(0, 50), "month": 101})


@pytest.mark.parametrize("tiering", ["graduated", "volume"])
def test_a_box_in_which_a_tiered_meter_is_below_zero_is_refused(tiering):
    tiered = charge(f"""
    meter = "a - b"
    tiering = "{tiering}"
    {'tier_after = "month"' if tiering == "graduated" else 'tier_by = "month"'}
    tiers = [{{ up_to = 1, price = 3 }}, {{ price = 2 }}]
    """)

    with pytest.raises(UsageError, match="b: makes the meter"):
        tiered.bound({"a": Span(0, 1), "b": 7, "month": Span(2, 4)})


def test_a_charge_that_may_not_apply_and_would_be_refused_holds_nothing():
    either = program("""
    [[charges]]
    name = "request"
    meter = "1"
    price = 1
    [[charges]]
    name = "pages"
    meter = "pages"
    tiering = "volume"
    tier_by = "pages"
    tiers = [{ up_to = 10, price = 1 }]
    when = "hour >= 22"
    """)

    assert either.bound({"pages": 11, "hour": Span(0, 23)}) == 10**8
    assert either.bound({"pages": Span(9, 11), "hour": Span(0, 23)}) == (1 + 11) * 10**8


def test_a_charge_that_may_or_may_not_apply_is_held():
    surcharge = program("""
    [[charges]]
    name = "input"
    meter = "input_tokens"
    price = 1
    [[charges]]
    name = "long input"
    meter = "input_tokens - 100"
    price = 2
    when = "input_tokens > 100"
    """)

    assert surcharge.bound({"input_tokens": Span(0, 100)}) == 100 * 10**8
    assert surcharge.bound({"input_tokens": Span(0, 150)}) == (150 + 2 * 50) * 10**8


def test_more_open_possibilities_than_can_be_tried_are_refused():
    body = " or ".join(f"k{n} == 'x{m}'" for n in range(6) for m in range(4))
    many = charge(f'meter = "1"\nprices = [{{ when = "{body}", price = 1 }}, {{ price = 2 }}]')
    texts = frozenset({"x0", "x1", "x2", "x3", "y", "z"})

    assert many.bound({f"k{n}": texts if n < 4 else "x0" for n in range(6)} | {"k4": "y", "k5": "y"}) == 2 * 10**8
    with pytest.raises(UsageError, match="1024 possibilities"):
        many.bound({f"k{n}": texts for n in range(6)})


def test_texts_that_the_program_does_not_tell_apart_count_as_one_possibility():
    two = charge('meter = "1"\nprices = [{ when = "voice == \'a\'", price = 1 }, { price = 2 }]')

    assert two.bound({"voice": frozenset(map(str, range(5000)))}) == 2 * 10**8


def test_a_text_without_a_price_is_left_out_of_an_open_set():
    box = {"input_tokens": 10, "output_tokens": 10, "mode": frozenset({*"abcdefghijklmnop", "normal"})}

    assert parse_program(CHAT).bound(box) == 10 * 15 + 10 * 30
    with pytest.raises(UsageError, match="has no price"):
        parse_program(CHAT).bound(box | {"mode": frozenset({"a", "turbo"})})
    with pytest.raises(UsageError, match="empty set"):
        parse_program(CHAT).bound(box | {"mode": frozenset()})


def test_an_open_flag_is_settled_both_ways():
    upscaled = charge('meter = "images * (2 if upscale else 1)"\nprice = 1')

    assert upscaled.bound({"images": 3, "upscale": frozenset({True, False})}) == 6 * 10**8
