"""Wanqing's ``priceInfo``, as its model instances carry it: prices in yuan for 1,000 tokens.

The lengths of input and output and the mode choose the price of the whole request. Ranges are read as those of its
public price list: behind the lower end, up to and with the upper; a range that begins at 0 has 0 too. A usage that is
in no range has no price.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from pricing.importers.price_list import ImportedProgram, NotExpressed, PriceList, program, program_ids
from pricing.language.definition import Case, Cases, Charge, Rate
from pricing.language.expressions import Condition, Key
from pricing.language.grammar import parse_condition

#: ``priceInfo`` prices 1,000 tokens.
_PER = Decimal(1000)

#: Values of ``usage_scene``, in the list's words; the first is that of a request that says none.
_SCENES = ("onlineInference", "offline")
_MODES = ("normal", "thinking")


class _ModePrice(msgspec.Struct, frozen=True):
    mode: str
    price: Decimal


class _PricingTier(msgspec.Struct, frozen=True, rename="camel"):
    tier_name: str
    input: Decimal
    output: tuple[_ModePrice, ...]


class _PriceInfo(msgspec.Struct, frozen=True, rename="camel"):
    usage_scene: str
    input_range: tuple[int, int]
    output_range: tuple[int, int]
    pricing_type: str
    pricing_tiers: tuple[_PricingTier, ...]


class _Instance(msgspec.Struct, frozen=True, rename="camel"):
    model_instance_id: str
    model_instance_name: str = ""


class _Model(msgspec.Struct, frozen=True, rename="camel"):
    model_instance: _Instance
    price_info: tuple[_PriceInfo, ...] = ()


def import_wanqing(document: Any, *, provider: str | None = None) -> PriceList:
    """The programs of all model instances; ``provider`` is for other lists and must be None.

    ``document`` is the decoded JSON of the list of instances, with or without its envelope, its numbers as int and
    Decimal. Raises ValueError when it is another document.
    """
    if provider is not None:
        raise ValueError("Wanqing's list names no providers")
    try:
        models = msgspec.convert(_unwrapped(document), tuple[_Model, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"this is not a list of Wanqing's model instances: {error}") from None
    named = [model.model_instance.model_instance_id for model in models]
    if len(set(named)) != len(named):
        raise ValueError(f"{next(id for id in named if named.count(id) > 1)} is listed twice")
    by_id = {model.model_instance.model_instance_id: model for model in models}
    ids = program_ids(by_id)
    left_out = {id: list(_left_out(id, model)) for id, model in by_id.items() if model.price_info}
    return PriceList(
        programs=tuple(_program(id, ids[id], by_id[id]) for id in left_out if not left_out[id]),
        unpriced=tuple(id for id in by_id if id not in left_out),
        not_expressed=tuple(each for reasons in left_out.values() for each in reasons),
    )


def _unwrapped(document: Any) -> Any:
    while isinstance(document, dict):
        document = next((document[key] for key in ("ResponseData", "list", "data") if key in document), [document])
    return document


def _program(model: str, id: str, instance: _Model) -> ImportedProgram:
    input = [case for info in instance.price_info for case in _input_cases(info)]
    output = [case for info in instance.price_info for case in _output_cases(info)]
    charges = [
        Charge("input", Key("input_tokens"), _rate(input), _PER, None, Decimal(0)),
        Charge("output", Key("output_tokens"), _rate(output), _PER, None, Decimal(0)),
    ]
    named = instance.model_instance.model_instance_name
    return program(
        model,
        id,
        charges,
        description=f"{named or model}, as Wanqing lists it",
        texts={"usage_scene": _SCENES, "mode": _MODES},
        currency="CNY",
    )


def _left_out(model: str, instance: _Model) -> Iterator[NotExpressed]:
    """Whatever stands in the way: half a price is none, so that one reason keeps the model out."""
    for info in instance.price_info:
        if info.usage_scene not in _SCENES:
            yield NotExpressed(model=model, what="usageScene", reason=f"{info.usage_scene!r} is not known")
        if len(info.pricing_tiers) != 1:
            reason = "what chooses among several pricingTiers of one range is not documented"
            yield NotExpressed(model=model, what="pricingTiers", reason=reason)
        for range in (info.input_range, info.output_range):
            if not 0 <= range[0] < range[1]:
                yield NotExpressed(model=model, what="inputRange", reason=f"{list(range)} is no range of lengths")
        prices = [price for tier in info.pricing_tiers for price in (tier.input, *(each.price for each in tier.output))]
        if any(price < 0 or not price.is_finite() for price in prices):
            yield NotExpressed(model=model, what="pricingTiers", reason="a price is below zero")
        if any(_overlap(info, other) for other in instance.price_info if other is not info):
            yield NotExpressed(model=model, what="inputRange", reason="ranges overlap: two prices for one request")
        modes = {price.mode for tier in info.pricing_tiers for price in tier.output}
        if not modes or not modes <= set(_MODES):
            yield NotExpressed(model=model, what="output", reason=f"modes {sorted(modes)} are not known")
        elif any(len({price.mode for price in tier.output}) < len(tier.output) for tier in info.pricing_tiers):
            yield NotExpressed(model=model, what="output", reason="a mode has two prices")


def _overlap(info: _PriceInfo, other: _PriceInfo) -> bool:
    ranges = ((info.input_range, other.input_range), (info.output_range, other.output_range))
    share = all(low < other_high and other_low < high for (low, high), (other_low, other_high) in ranges)
    return share and info.usage_scene == other.usage_scene


def _input_cases(info: _PriceInfo) -> Iterator[tuple[str, Decimal]]:
    for tier in info.pricing_tiers:
        yield _in_range(info), tier.input


def _output_cases(info: _PriceInfo) -> Iterator[tuple[str, Decimal]]:
    for tier in info.pricing_tiers:
        prices = {price.price for price in tier.output}
        if len(prices) == 1 and len(tier.output) == len(_MODES):
            yield _in_range(info), prices.pop()
        else:
            yield from ((f"{_in_range(info)} and mode == '{price.mode}'", price.price) for price in tier.output)


def _in_range(info: _PriceInfo) -> str:
    lengths = (("input_tokens", info.input_range), ("output_tokens", info.output_range))
    ends = [f"usage_scene == '{info.usage_scene}'"]
    for key, (low, high) in lengths:
        ends += [f"{key} > {low}"] if low else []
        ends.append(f"{key} <= {high}")
    return " and ".join(ends)


def _rate(cases: list[tuple[str, Decimal]]) -> Rate:
    return Cases(tuple(Case(_condition(when), price) for when, price in cases))


def _condition(text: str) -> Condition:
    return parse_condition(text)[0]
