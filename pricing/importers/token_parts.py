"""The parts of a prompt and of an answer that a price list may price, and what is left of a whole without them.

A part is inside its whole, as docs/pricing.md has it: ``input_tokens`` is the whole prompt. Each part is known by its
tags; one part is inside another if it has all tags of the other and more. A token that has two tags (audio, and read
from the cache) is in two parts and in the part of both, which is why meters are sums with signs.
"""

from collections.abc import Collection

from pricing.language.expressions import Arithmetic, Key, Number

#: Usage key → its tags, in the order in which programs charge.
PARTS: dict[str, frozenset[str]] = {
    "input_tokens": frozenset({"input"}),
    "cached_input_tokens": frozenset({"input", "read"}),
    "cache_write_input_tokens": frozenset({"input", "write"}),
    "cache_write_1h_input_tokens": frozenset({"input", "write", "1h"}),
    "cache_write_12h_input_tokens": frozenset({"input", "write", "12h"}),
    "input_audio_tokens": frozenset({"input", "audio"}),
    "cached_input_audio_tokens": frozenset({"input", "audio", "read"}),
    "input_image_tokens": frozenset({"input", "image"}),
    "cached_input_image_tokens": frozenset({"input", "image", "read"}),
    "input_video_tokens": frozenset({"input", "video"}),
    "cached_input_video_tokens": frozenset({"input", "video", "read"}),
    "output_tokens": frozenset({"output"}),
    "reasoning_tokens": frozenset({"output", "reasoning"}),
    "output_citation_tokens": frozenset({"output", "citation"}),
    "output_audio_tokens": frozenset({"output", "audio"}),
    "output_image_tokens": frozenset({"output", "image"}),
    "output_video_tokens": frozenset({"output", "video"}),
}


def part_name(part: str) -> str:
    """The part as a line of a receipt names it."""
    return part.removesuffix("_tokens").replace("_", " ")


def is_inside(part: str, whole: str) -> bool:
    return PARTS[part] > PARTS[whole]


def next_wholes(part: str, among: Collection[str]) -> list[str]:
    """The wholes that the part is directly inside of, with no other of ``among`` between."""
    wholes = [whole for whole in among if is_inside(part, whole)]
    return [whole for whole in wholes if not any(is_inside(other, whole) for other in wholes)]


def meter_of(part: str, among: Collection[str]) -> Number:
    """The tokens of the part that are in no smaller part of ``among``."""
    counts = _leaf(part, among)
    meter: Number = Key(part)
    for key in PARTS:
        count = counts.get(key, 0)
        for _ in range(abs(count) if key != part else 0):
            meter = Arithmetic("+" if count > 0 else "-", meter, Key(key))
    return meter


def _leaf(part: str, among: Collection[str]) -> dict[str, int]:
    """How often each key counts, with its sign."""
    counts = {part: 1}
    for inner in (other for other in among if is_inside(other, part)):
        for key, count in _leaf(inner, among).items():
            counts[key] = counts.get(key, 0) - count
    return counts
