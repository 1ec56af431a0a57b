"""Small programs, one for each feature of the language, and short words for others."""

from pricing import parse_program

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

VOLUME = GRADUATED.replace("graduated", "volume")

IMAGES = """
meter = "images"
prices = [
  { when = "size == '1024x1024' and quality == 'hd'", price = 0.08 },
  { when = "size == '1024x1024'", price = 0.04 },
  { when = "size == '1792x1024' and quality == 'hd'", price = 0.12 },
]
"""

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


def program(body: str):
    return parse_program(f'id = "p"\ncurrency = "USD"\n{body}')


def charge(body: str):
    return program(f'[[charges]]\nname = "c"\n{body}')


def price(body: str, **usage) -> int:
    return program(body).price(usage).total_microcents
