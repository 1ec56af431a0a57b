"""Random usages for imported programs, as a backend would report them: parts inside their wholes, edges met often."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from pricing import Program
from pricing.samples import edges, texts_told_apart

#: Parts of a prompt that no token is in two of, and the keys that each counts in.
LEAVES = {
    "text": (),
    "cached": ("cached_input_tokens",),
    "written": ("cache_write_input_tokens",),
    "written for 1 hour": ("cache_write_input_tokens", "cache_write_1h_input_tokens"),
    "written for 12 hours": ("cache_write_input_tokens", "cache_write_12h_input_tokens"),
    "audio": ("input_audio_tokens",),
    "cached audio": ("input_audio_tokens", "cached_input_tokens", "cached_input_audio_tokens"),
    "image": ("input_image_tokens",),
    "cached image": ("input_image_tokens", "cached_input_tokens", "cached_input_image_tokens"),
    "video": ("input_video_tokens",),
}
OUTPUT_LEAVES = {
    "text": (),
    "reasoning": ("reasoning_tokens",),
    "audio": ("output_audio_tokens",),
    "image": ("output_image_tokens",),
    "video": ("output_video_tokens",),
    "citation": ("output_citation_tokens",),
}

#: Parts that every model may report. Where a list does not price them, they cost what their whole costs.
ALWAYS_REPORTED = {"cached_input_tokens", "reasoning_tokens"}

#: Counts of everything but tokens stay below this.
MOST_UNITS = 50
MOST_PIXELS = 4_000_000


def random_usage(program: Program, random: Random, at: datetime) -> dict[str, object]:
    """A usage that the program prices, of a request at that time."""
    usage: dict[str, object] = {}
    for key, kind in program.keys.items():
        if kind == "text":
            usage[key] = random.choice(texts_told_apart(program.definition, key))
        elif not key.endswith("_tokens") or key == "citation_tokens":
            usage[key] = random.randint(1, MOST_PIXELS if key == "pixels" else MOST_UNITS)
    if "annotated_pages" in usage:
        usage["annotated_pages"] = min(usage["annotated_pages"], usage["pages"])
    if any(key.endswith("_tokens") and key != "citation_tokens" for key in program.keys):
        readable = program.keys.keys() | ALWAYS_REPORTED
        usage |= split("input_tokens", prompt_length(program, random), LEAVES, readable, random)
        usage |= split("output_tokens", log_uniform(random, 100_000), OUTPUT_LEAVES, readable, random)
    clock = {"hour": at.hour, "minute": at.minute, "weekday": at.isoweekday()}
    return usage | {key: value for key, value in clock.items() if key in program.keys}


def random_time(random: Random, start: datetime, end: datetime) -> datetime:
    """A whole minute from start to before end, on the edges of hours more often than elsewhere."""
    minutes = max(int((end - start) / timedelta(minutes=1)), 1)
    at = (start + timedelta(minutes=random.randrange(minutes))).replace(second=0, microsecond=0, tzinfo=UTC)
    return at.replace(minute=random.choice([0, 29, 30, 59, at.minute]))


def split(
    whole: str, total: int, leaves: dict[str, tuple[str, ...]], readable: set[str], random: Random
) -> dict[str, object]:
    """The whole and its parts. Some requests have none of the parts."""
    counts: dict[str, int] = dict.fromkeys((key for keys in leaves.values() for key in keys if key in readable), 0)
    rest = total
    for keys in leaves.values():
        if keys and all(key in readable for key in keys) and random.random() < 0.6:
            tokens = random.randint(0, rest)
            rest -= tokens
            for key in keys:
                counts[key] += tokens
    return {whole: total, **counts}


def prompt_length(program: Program, random: Random) -> int:
    lengths = [int(length) for length in edges(program.definition).get("input_tokens", ())]
    if lengths and random.random() < 0.7:
        return max(random.choice(lengths) + random.choice([-1, 0, 1, 1000]), 1)
    return log_uniform(random, 400_000)


def log_uniform(random: Random, most: int) -> int:
    return int(Decimal(most) ** Decimal(str(random.random())))
