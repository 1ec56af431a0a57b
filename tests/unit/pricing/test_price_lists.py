"""Everything a seller of inference charges for, written as programs, with amounts worked out by hand."""

from decimal import Decimal

import pytest

from pricing import UsageError
from tests.unit.pricing.programs import charge, program

# A long-context model: the whole request is dearer when its input is longer than 200,000 tokens. Each token is priced
# once: fresh, read from the cache, or written to it for five minutes or an hour.
LONG_CONTEXT = """
[defaults]
cached_input_tokens = 0
cache_write_5m_tokens = 0
cache_write_1h_tokens = 0

[[charges]]
name = "input"
meter = "input_tokens - cached_input_tokens - cache_write_5m_tokens - cache_write_1h_tokens"
per = 1_000_000
tiering = "volume"
tier_by = "input_tokens"
tiers = [{ up_to = 200_000, price = 3 }, { price = 6 }]

[[charges]]
name = "cached input"
meter = "cached_input_tokens"
per = 1_000_000
tiering = "volume"
tier_by = "input_tokens"
tiers = [{ up_to = 200_000, price = 0.30 }, { price = 0.60 }]

[[charges]]
name = "cache write, 5 minutes"
meter = "cache_write_5m_tokens"
per = 1_000_000
tiering = "volume"
tier_by = "input_tokens"
tiers = [{ up_to = 200_000, price = 3.75 }, { price = 7.50 }]

[[charges]]
name = "cache write, 1 hour"
meter = "cache_write_1h_tokens"
per = 1_000_000
tiering = "volume"
tier_by = "input_tokens"
tiers = [{ up_to = 200_000, price = 6 }, { price = 12 }]

[[charges]]
name = "output"
meter = "output_tokens"
per = 1_000_000
tiering = "volume"
tier_by = "input_tokens"
tiers = [{ up_to = 200_000, price = 15 }, { price = 22.50 }]
"""


@pytest.mark.parametrize(
    ("tokens", "cached", "write_5m", "write_1h", "output", "dollars"),
    [
        (100_000, 0, 0, 0, 1000, "0.3 + 0.015"),
        (100_000, 90_000, 0, 0, 1000, "0.03 + 0.027 + 0.015"),
        (100_000, 50_000, 20_000, 10_000, 0, "0.06 + 0.015 + 0.075 + 0.06"),
        (200_000, 0, 0, 0, 0, "0.6"),
        (200_001, 0, 0, 0, 0, "1.200006"),
        (300_000, 300_000, 0, 0, 1000, "0.18 + 0.0225"),
    ],
)
def test_each_token_of_a_long_context_is_priced_once_by_how_it_was_cached(
    tokens, cached, write_5m, write_1h, output, dollars
):
    usage = {
        "input_tokens": tokens,
        "cached_input_tokens": cached,
        "cache_write_5m_tokens": write_5m,
        "cache_write_1h_tokens": write_1h,
        "output_tokens": output,
    }

    assert program(LONG_CONTEXT).price(usage).total_microcents == sum(map(Decimal, dollars.split(" + "))) * 10**8


def test_parts_larger_than_the_whole_are_refused():
    usage = {"input_tokens": 100, "cached_input_tokens": 60, "cache_write_5m_tokens": 60, "output_tokens": 0}

    with pytest.raises(UsageError, match=r"cached_input_tokens: .* larger than its whole"):
        program(LONG_CONTEXT).price(usage)


# Wanqing's priceInfo: pricing tiers by the length of the input and of the output, output by mode, per 1,000 tokens.
RANGES = """
[[charges]]
name = "input"
meter = "input_tokens"
per = 1000
prices = [
  { when = "input_tokens <= 32_000 and output_tokens <= 200", price = 0.0008 },
  { when = "input_tokens <= 32_000", price = 0.0008 },
  { when = "input_tokens <= 128_000", price = 0.0012 },
]

[[charges]]
name = "output"
meter = "output_tokens"
per = 1000
prices = [
  { when = "input_tokens <= 32_000 and output_tokens <= 200", price = 0.002 },
  { when = "input_tokens <= 32_000 and mode == 'thinking'", price = 0.008 },
  { when = "input_tokens <= 32_000", price = 0.004 },
  { when = "input_tokens <= 128_000 and mode == 'thinking'", price = 0.016 },
  { when = "input_tokens <= 128_000", price = 0.008 },
]
"""


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "mode", "yuan"),
    [
        (1000, 200, "thinking", "0.0012"),
        (1000, 1000, "thinking", "0.0088"),
        (1000, 1000, "normal", "0.0048"),
        (100_000, 1000, "thinking", "0.136"),
        (100_000, 1000, "normal", "0.128"),
    ],
)
def test_the_ranges_of_input_and_output_and_the_mode_choose_the_price(input_tokens, output_tokens, mode, yuan):
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens, "mode": mode}

    assert program(RANGES).price(usage).total_microcents == Decimal(yuan) * 10**8


def test_a_length_outside_of_all_ranges_is_refused():
    with pytest.raises(UsageError, match="no case of charge 'input' fits"):
        program(RANGES).price({"input_tokens": 128_001, "output_tokens": 1, "mode": "normal"})


@pytest.mark.parametrize(
    ("what", "body", "usage", "dollars"),
    [
        (
            "reasoning and audio tokens, each at its own price and each once",
            """
            [[charges]]
            name = "text"
            meter = "output_tokens - reasoning_tokens - output_audio_tokens"
            price = 10
            [[charges]]
            name = "reasoning"
            meter = "reasoning_tokens"
            price = 12
            [[charges]]
            name = "audio"
            meter = "output_audio_tokens"
            price = 20
            """,
            {"output_tokens": 10, "reasoning_tokens": 3, "output_audio_tokens": 2},
            5 * 10 + 3 * 12 + 2 * 20,
        ),
        (
            "video by the second, by resolution, with or without sound",
            """
            [[charges]]
            name = "video"
            meter = "video_seconds"
            prices = [
              { when = "resolution == '720p'", price = 0.10 },
              { when = "resolution == '1080p'", price = 0.25 },
            ]
            [[charges]]
            name = "sound"
            meter = "video_seconds"
            price = 0.05
            when = "audio"
            """,
            {"video_seconds": 8, "resolution": "1080p", "audio": True},
            "2.4",
        ),
        (
            "transcription by the started second, ten seconds at least",
            """
            [[charges]]
            name = "transcription"
            meter = "max(ceil(audio_seconds), 10)"
            price = 0.006
            per = 60
            """,
            {"audio_seconds": Decimal("60.25")},
            "0.0061",
        ),
        (
            "speech by the character",
            '[[charges]]\nname = "speech"\nmeter = "characters"\nprice = 15\nper = 1_000_000\n',
            {"characters": 2000},
            "0.03",
        ),
        (
            "pages, the first hundred of the month free",
            """
            [[charges]]
            name = "pages"
            meter = "pages"
            tiering = "graduated"
            tier_after = "pages_this_month"
            tiers = [{ up_to = 100, price = 0 }, { price = 0.002 }]
            """,
            {"pages": 30, "pages_this_month": 90},
            "0.04",
        ),
        (
            "vision by image and feature",
            '[[charges]]\nname = "vision"\nmeter = "images * features"\nprice = 0.0015\n',
            {"images": 4, "features": 3},
            "0.018",
        ),
        (
            "fine-tuning by the trained token, and GPU seconds",
            """
            [[charges]]
            name = "training"
            meter = "trained_tokens"
            price = 8
            per = 1_000_000
            [[charges]]
            name = "GPU"
            meter = "gpu_seconds"
            price = 3.60
            per = 3600
            """,
            {"trained_tokens": 500_000, "gpu_seconds": 90},
            "4.09",
        ),
        (
            "a flat fee, doubled for high priority, cheaper at night, never above a dollar",
            """
            [[charges]]
            name = "request"
            meter = "1"
            price = 0.80
            [[adjustments]]
            name = "high priority"
            when = "priority == 'high'"
            factor = 2
            [[adjustments]]
            name = "night"
            when = "hour >= 22 or hour < 6"
            factor = 0.75
            [[adjustments]]
            name = "maximum"
            maximum = 1
            """,
            {"priority": "high", "hour": 3},
            1,
        ),
    ],
)
def test_every_other_price_list_comes_to_the_amount_worked_out_by_hand(what, body, usage, dollars):
    assert program(body).price(usage).total_microcents == Decimal(dollars) * 10**8, what
    assert program(body).bound(usage) == Decimal(dollars) * 10**8


def test_an_image_model_by_size_and_quality_sells_what_is_listed_and_nothing_else():
    images = charge("""
    meter = "images"
    prices = [
      { when = "size == '1024x1024' and quality == 'low'", price = 0.011 },
      { when = "size == '1024x1024' and quality == 'high'", price = 0.167 },
      { when = "size == '1536x1024' and quality == 'high'", price = 0.25 },
    ]
    """)

    assert images.price({"images": 2, "size": "1024x1024", "quality": "high"}).total_microcents == 33_400_000
    with pytest.raises(UsageError):
        images.price({"images": 2, "size": "1536x1024", "quality": "low"})
