"""Random price programs, usages for them, and boxes around a usage."""

from decimal import Decimal

from hypothesis import strategies as st

from pricing import Program, Span, parse_program
from pricing.language.definition import (
    Adjustment,
    Case,
    Cases,
    Charge,
    Definition,
    Flat,
    Graduated,
    Rate,
    Tier,
    Volume,
)
from pricing.language.expressions import (
    ZERO,
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
from pricing.language.format import format_definition
from pricing.language.rounding import ROUNDERS, Rounding

NUMBER_KEYS = ("input_tokens", "cached_input_tokens", "output_tokens", "audio_seconds", "hour")
TEXT_KEYS = ("mode", "size")
FLAG_KEYS = ("audio", "express")
TEXTS = ("thinking", "normal", "1024x1024", "it's", "")

#: Few different numbers, so that thresholds are met exactly again and again; and some awkward ones.
positive_decimals = st.sampled_from([Decimal(n) for n in ("1", "2", "3", "7", "0.5", "0.15", "12.345", "1000000")])
decimals = st.just(Decimal(0)) | positive_decimals
prices = st.sampled_from([Decimal(n) for n in ("3", "0.15", "0.000000012345", "1.1", "0", "20")])

number_keys = st.sampled_from(NUMBER_KEYS).map(Key)
_leaves = number_keys | decimals.map(Constant)
_comparisons = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@st.composite
def numbers(draw: st.DrawFn, depth: int = 3) -> Number:
    if depth == 0 or draw(st.booleans()):
        return draw(_leaves)
    inner = numbers(depth - 1)
    match draw(st.sampled_from(["+", "-", "*", "/", "min", "max", "ceil", "if"])):
        case "/":
            return Divide(draw(inner), draw(positive_decimals))
        case "ceil":
            return Ceil(draw(inner))
        case "if":
            return Choice(draw(conditions(depth - 1)), draw(inner), draw(inner))
        case "min" | "max" as function:
            return Extreme(function, tuple(draw(st.lists(inner, min_size=2, max_size=3))))
        case operator:
            return Arithmetic(operator, draw(inner), draw(inner))


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> Condition:
    inner = conditions(depth - 1)
    sorts = ["threshold", "text", "flag", "compare", "not", "and", "or"]
    match draw(st.sampled_from(sorts if depth else sorts[:3])):
        case "threshold":
            return Compare(draw(_comparisons), draw(number_keys), Constant(draw(decimals)))
        case "text":
            return TextIs(draw(st.sampled_from(TEXT_KEYS)), draw(st.sampled_from(TEXTS)), draw(st.booleans()))
        case "flag":
            return Flag(draw(st.sampled_from(FLAG_KEYS)))
        case "compare":
            return Compare(draw(_comparisons), draw(numbers(depth)), draw(numbers(depth)))
        case "not":
            return Not(draw(inner))
        case operator:
            return Junction(operator, draw(inner), draw(inner))


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = sorted(draw(st.sets(positive_decimals, min_size=1, max_size=4)))
    rows = [Tier(end, draw(prices)) for end in ends]
    if draw(st.booleans()):
        rows.append(Tier(None, draw(prices)))
    return tuple(rows)


@st.composite
def cases(draw: st.DrawFn) -> Cases:
    rows = draw(st.lists(st.builds(Case, conditions(), prices), max_size=3))
    if draw(st.booleans()) or not rows:
        rows.append(Case(None, draw(prices)))
    return Cases(tuple(rows))


rates: st.SearchStrategy[Rate] = st.one_of(
    st.builds(Flat, prices),
    st.builds(Graduated, tiers(), st.just(ZERO) | numbers()),
    st.builds(Volume, tiers(), st.none() | numbers()),
    cases(),
)
_part = Arithmetic("-", Key("input_tokens"), Key("cached_input_tokens"))
meters = st.one_of(number_keys, st.just(_part), numbers())

_adjusting = st.sampled_from([Decimal(n) for n in ("0.5", "2", "1000000", "12.345", "0")])

#: Half of the charges and adjustments hold always: what applies together is where bounds are hard.
whens = st.one_of(st.none(), conditions())


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    names = iter("abcdefghij")
    charges = tuple(
        Charge(
            name=next(names),
            meter=draw(meters),
            rate=draw(st.builds(Flat, prices) | rates),
            per=draw(positive_decimals),
            when=draw(whens),
            free=draw(st.sampled_from([Decimal(0), Decimal(0), Decimal(7)])),
        )
        for _ in range(draw(st.sampled_from([3, 1, 2, 5])))
    )
    adjustments = tuple(
        Adjustment(next(names), kind, draw(_adjusting), draw(whens))
        for kind in draw(st.sampled_from([("factor", "minimum"), (), ("maximum",), ("minimum", "factor", "maximum")]))
    )
    rounding = Rounding(draw(st.sampled_from(list(ROUNDERS))), draw(st.sampled_from([1, 1, 12_300, 1_000_000])))
    return Definition("p", "USD", "", {}, {}, (), charges, adjustments, rounding)


def programs() -> st.SearchStrategy[Program]:
    return definitions().map(format_definition).map(parse_program)


usage_numbers = st.one_of(
    st.integers(0, 10),
    decimals,
    st.integers(0, 10**12),
    st.decimals(min_value=0, max_value=1000, places=3),
)


@st.composite
def usages(draw: st.DrawFn, program: Program) -> dict[str, int | Decimal | str | bool]:
    values = {"number": usage_numbers, "text": st.sampled_from([*TEXTS, "else"]), "flag": st.booleans()}
    return {key: draw(values[kind]) for key, kind in program.keys.items()}


@st.composite
def boxes_around(draw: st.DrawFn, usage: dict[str, int | Decimal | str | bool]) -> dict[str, object]:
    """A box that the usage lies in."""
    return {key: draw(_around(value)) for key, value in usage.items()}


def _around(value: int | Decimal | str | bool) -> st.SearchStrategy[object]:
    if isinstance(value, bool):
        return st.sampled_from([value, frozenset({value}), frozenset({True, False})])
    if isinstance(value, str):
        return st.just(value) | st.frozensets(st.sampled_from(TEXTS)).map(lambda others: others | {value})
    less = more = st.sampled_from([0, 1, 2, Decimal("0.5"), 10, 10**7])
    # Ends below zero are allowed: what no usage can have is cut off.
    return st.just(value) | st.builds(lambda low, high: Span(value - low, value + high), less, more)
