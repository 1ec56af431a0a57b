"""What a chart shows: prices that the program gives, on both sides of every edge."""

import subprocess
import sys
from decimal import Decimal

import pytest

from pricing import PricingError, UsageError, parse_program
from pricing.chart import chart_svg, panels
from tests.unit.pricing.programs import CHAT, IMAGES, VOLUME, charge, program

NORMAL = {"mode": "normal"}


def test_a_chat_has_a_panel_for_its_input_and_one_for_its_output():
    of_input, of_output = panels(parse_program(CHAT), NORMAL)

    assert (of_input.meter, of_output.meter) == ("input_tokens", "output_tokens")
    assert [curve.label for curve in of_input.curves] == [
        "0 output_tokens", "1,000 output_tokens", "10,000 output_tokens",
    ]  # fmt: skip
    assert (100_000, Decimal("0.015") + Decimal("0.0003")) == of_input.curves[1].points[-1]


def test_a_curve_has_a_point_on_each_side_of_an_edge_and_goes_on_beyond_it():
    (panel,) = panels(charge(VOLUME), {})

    assert panel.edges == [1000, 5000]
    prices = dict(panel.curves[0].points)
    assert (prices[1000], prices[1001]) == (3, Decimal("2.002"))
    assert max(prices) == 10_000


def test_a_curve_breaks_off_where_the_usage_is_refused():
    (panel,) = panels(charge('meter = "pages"\ntiering = "volume"\ntiers = [{ up_to = 10, price = 1 }]'), {})

    assert [point for point in panel.curves[0].points if point[0] in (10, 11)] == [(10, 10), (11, None)]


def test_settings_hold_a_key_fast_and_what_they_refuse_throughout_is_told():
    thinking, _ = panels(parse_program(CHAT), {"mode": "thinking"})
    (images,) = panels(charge(IMAGES), {"size": "1024x1024"})

    assert thinking.curves[1].points[0] == (0, Decimal("0.0006"))
    assert images.curves[0].points[1] == (1, Decimal("0.08"))
    with pytest.raises(UsageError, match="no case"):
        panels(charge(IMAGES), {"size": "1x1"})


def test_a_program_without_a_meter_has_nothing_to_draw():
    with pytest.raises(PricingError, match="no meter"):
        panels(program('[[charges]]\nname = "fee"\nmeter = "1"\nprice = 1\n'), {})


def test_a_chart_says_in_text_what_it_shows_and_is_the_same_every_time():
    svg = chart_svg(charge(VOLUME), {})

    for text in ("input_tokens", "price, USD", "1,000", "5,000"):
        assert f">{text}<" in svg
    assert svg == chart_svg(charge(VOLUME), {})


def test_without_matplotlib_a_chart_says_what_to_install_and_the_room_does_not_need_it():
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import pricing; from pricing.chart import chart_svg\n"
        f"chart_svg(pricing.parse_program({CHAT!r}), {{}})"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "PricingError: charts need matplotlib: pip install 'tollgate[charts]'" in run.stderr
