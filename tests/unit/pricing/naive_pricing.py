"""The meaning of a price program, written down a second time: plainly, slowly, in fractions.

It shares the tree with the compiler and nothing else. It raises Refused where a usage cannot be priced.
"""

from fractions import Fraction
from math import ceil, floor

from pricing.language.definition import Cases, Charge, Definition, Flat, Graduated, Volume
from pricing.language.expressions import (
    Arithmetic,
    Ceil,
    Choice,
    Compare,
    Condition,
    Constant,
    Divide,
    Extreme,
    Flag,
    Junction,
    Key,
    Not,
    Number,
    TextIs,
)

MICROCENTS_PER_UNIT = 100_000_000


class Refused(Exception):
    pass


def naive_price(definition: Definition, usage: dict) -> int:
    total = Fraction(0)
    applied = 0
    for charge in definition.charges:
        if charge.when is None or holds(charge.when, usage):
            total += charged(charge, usage)
            applied += 1
    if not applied:
        raise Refused
    for adjustment in definition.adjustments:
        if adjustment.when is None or holds(adjustment.when, usage):
            value = Fraction(adjustment.value)
            match adjustment.kind:
                case "factor":
                    total *= value
                case "minimum":
                    total = max(total, value)
                case "maximum":
                    total = min(total, value)
    quantum = definition.rounding.quantum_microcents
    return rounded(total * MICROCENTS_PER_UNIT / quantum, definition.rounding.mode) * quantum


def charged(charge: Charge, usage: dict) -> Fraction:
    """In the major unit of the currency."""
    meter = value(charge.meter, usage)
    if meter < 0:
        raise Refused
    quantity = max(meter - Fraction(charge.free), Fraction(0))
    return priced(charge, quantity, usage) / Fraction(charge.per)


def priced(charge: Charge, quantity: Fraction, usage: dict) -> Fraction:
    match charge.rate:
        case Flat(price):
            return quantity * Fraction(price)
        case Cases(cases):
            for case in cases:
                if case.when is None or holds(case.when, usage):
                    return quantity * Fraction(case.price)
            raise Refused
        case Volume(tiers, by):
            position = quantity if by is None else value(by, usage)
            for tier in tiers:
                if tier.up_to is None or position <= Fraction(tier.up_to):
                    return quantity * Fraction(tier.price)
            raise Refused
        case Graduated(tiers, after):
            return graduated(tiers, value(after, usage), quantity)


def graduated(tiers: tuple, start: Fraction, quantity: Fraction) -> Fraction:
    end = start + quantity
    last = tiers[-1].up_to
    if last is not None and end > Fraction(last):
        raise Refused
    amount, floor_ = Fraction(0), None
    for tier in tiers:
        top = end if tier.up_to is None else min(end, Fraction(tier.up_to))
        bottom = start if floor_ is None else max(start, floor_)
        if top > bottom:
            amount += (top - bottom) * Fraction(tier.price)
        floor_ = None if tier.up_to is None else Fraction(tier.up_to)
    return amount


def rounded(quanta: Fraction, mode: str) -> int:
    match mode:
        case "up":
            return ceil(quanta)
        case "down":
            return floor(quanta)
        case "half_up":
            return floor(quanta + Fraction(1, 2))
        case _:
            return round(quanta)


def value(node: Number, usage: dict) -> Fraction:
    match node:
        case Constant(constant):
            return Fraction(constant)
        case Key(name):
            return Fraction(usage[name])
        case Arithmetic("+", left, right):
            return value(left, usage) + value(right, usage)
        case Arithmetic("-", left, right):
            return value(left, usage) - value(right, usage)
        case Arithmetic("*", left, right):
            return value(left, usage) * value(right, usage)
        case Divide(dividend, divisor):
            return value(dividend, usage) / Fraction(divisor)
        case Extreme(function, arguments):
            return (min if function == "min" else max)(value(each, usage) for each in arguments)
        case Ceil(argument):
            return Fraction(ceil(value(argument, usage)))
        case Choice(condition, then, otherwise):
            return value(then if holds(condition, usage) else otherwise, usage)


def holds(node: Condition, usage: dict) -> bool:
    match node:
        case Flag(name):
            return usage[name]
        case TextIs(name, text, negated):
            return (usage[name] == text) is not negated
        case Not(condition):
            return not holds(condition, usage)
        case Junction("and", left, right):
            return holds(left, usage) and holds(right, usage)
        case Junction(_, left, right):
            return holds(left, usage) or holds(right, usage)
        case Compare(operator, left, right):
            a, b = value(left, usage), value(right, usage)
            return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[operator]
