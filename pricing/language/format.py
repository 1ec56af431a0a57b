"""From the tree of a program back to its canonical text: one layout, whatever way the author wrote it.

Parsing the canonical text gives an equal tree again. Comments are not part of the tree and are not kept.
"""

from collections.abc import Iterator
from decimal import Decimal

from pricing.language.definition import Adjustment, Cases, Charge, Definition, Flat, Graduated, Volume
from pricing.language.expressions import (
    ZERO,
    Arithmetic,
    Ceil,
    Choice,
    Compare,
    Constant,
    Divide,
    Extreme,
    Flag,
    Junction,
    Key,
    Node,
    Not,
    TextIs,
)
from pricing.language.program import Program
from pricing.language.reader import QUANTA
from pricing.language.rounding import Rounding

#: How tight the outermost operator of an expression binds; what binds less tight needs parentheses within it.
_CHOICE, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _OPERAND = range(8)


def format_program(program: Program) -> str:
    """The canonical text of the program."""
    return format_definition(program.definition)


def format_definition(definition: Definition) -> str:
    """The canonical text of a program's tree."""
    blocks = [
        _head(definition),
        _table("defaults", {key: _value(value) for key, value in definition.defaults.items()}),
        _table("values", {key: _list(map(_quoted, texts)) for key, texts in definition.values.items()}),
        *map(_charge, definition.charges),
        *map(_adjustment, definition.adjustments),
        _rounding(definition.rounding),
    ]
    return "\n".join("\n".join(block) + "\n" for block in blocks if block)


def format_expression(node: Node) -> str:
    """The expression with as few parentheses as its meaning allows."""
    return _written(node, _CHOICE)


def _head(definition: Definition) -> list[str]:
    lines = [f"id = {_quoted(definition.id)}", f"currency = {_quoted(definition.currency)}"]
    if definition.description:
        lines.append(f"description = {_quoted(definition.description)}")
    if definition.not_charged:
        lines.append(f"not_charged = {_list(map(_quoted, definition.not_charged))}")
    return lines


def _table(name: str, pairs: dict[str, str]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {value}" for key, value in pairs.items())] if pairs else []


def _charge(charge: Charge) -> list[str]:
    lines = ["[[charges]]", f"name = {_quoted(charge.name)}", f"meter = {_expression(charge.meter)}"]
    if charge.free:
        lines.append(f"free = {_number(charge.free)}")
    if charge.when is not None:
        lines.append(f"when = {_expression(charge.when)}")
    lines += _rate(charge)
    if charge.per != 1:
        lines.append(f"per = {_number(charge.per)}")
    return lines


def _rate(charge: Charge) -> Iterator[str]:
    match charge.rate:
        case Flat(price):
            yield f"price = {_number(price)}"
        case Cases(cases):
            yield "prices = ["
            for case in cases:
                when = f"when = {_expression(case.when)}, " if case.when is not None else ""
                yield f"  {{ {when}price = {_number(case.price)} }},"
            yield "]"
        case Graduated(tiers) | Volume(tiers) as rate:
            yield f'tiering = "{"graduated" if isinstance(rate, Graduated) else "volume"}"'
            if isinstance(rate, Volume) and rate.by is not None:
                yield f"tier_by = {_expression(rate.by)}"
            if isinstance(rate, Graduated) and rate.after != ZERO:
                yield f"tier_after = {_expression(rate.after)}"
            yield "tiers = ["
            for tier in tiers:
                up_to = f"up_to = {_number(tier.up_to)}, " if tier.up_to is not None else ""
                yield f"  {{ {up_to}price = {_number(tier.price)} }},"
            yield "]"


def _adjustment(adjustment: Adjustment) -> list[str]:
    lines = ["[[adjustments]]", f"name = {_quoted(adjustment.name)}"]
    if adjustment.when is not None:
        lines.append(f"when = {_expression(adjustment.when)}")
    return [*lines, f"{adjustment.kind} = {_number(adjustment.value)}"]


def _rounding(rounding: Rounding) -> list[str]:
    names = {microcents: name for name, microcents in QUANTA.items()}
    if rounding.quantum_microcents in names:
        quantum = _quoted(names[rounding.quantum_microcents])
    else:
        quantum = _number(Decimal(f"{rounding.quantum_microcents}E-8"))
    return _table("rounding", {"mode": _quoted(rounding.mode), "quantum": quantum})


def _written(node: Node, needed: int) -> str:
    """The node, in parentheses if it binds less tight than its place needs."""
    text, binding = _loose(node)
    return f"({text})" if binding < needed else text


def _loose(node: Node) -> tuple[str, int]:
    """The node without parentheses around it, and how tight it binds.

    Operators of one level group to the left, so that the right one of their operands must bind tighter.
    """
    match node:
        case Constant(value):
            return _number(value), _OPERAND
        case Key(name) | Flag(name):
            return name, _OPERAND
        case Arithmetic(operator, left, right):
            level = _PRODUCT if operator == "*" else _SUM
            return f"{_written(left, level)} {operator} {_written(right, level + 1)}", level
        case Divide(dividend, divisor):
            return f"{_written(dividend, _PRODUCT)} / {_number(divisor)}", _PRODUCT
        case Extreme(function, arguments):
            return f"{function}({', '.join(map(format_expression, arguments))})", _OPERAND
        case Ceil(argument):
            return f"ceil({format_expression(argument)})", _OPERAND
        case Choice(condition, then, otherwise):
            return f"{_written(then, _OR)} if {_written(condition, _OR)} else {format_expression(otherwise)}", _CHOICE
        case TextIs(name, text, negated):
            return f"{name} {'!=' if negated else '=='} {_text_literal(text)}", _COMPARISON
        case Compare(operator, left, right):
            return f"{_written(left, _SUM)} {operator} {_written(right, _SUM)}", _COMPARISON
        case Not(condition):
            return f"not {_written(condition, _NOT)}", _NOT
        case Junction(operator, left, right):
            level = _OR if operator == "or" else _AND
            return f"{_written(left, level)} {operator} {_written(right, level + 1)}", level


def _text_literal(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def _expression(node: Node) -> str:
    return _quoted(format_expression(node))


def _value(value: Decimal | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else _number(value)


def _list(items: Iterator[str]) -> str:
    return f"[{', '.join(items)}]"


def _number(value: Decimal) -> str:
    """Plain digits, grouped by threes from ten thousand on; no exponent, no trailing zeros."""
    whole, _, decimals = format(value, "f").partition(".")
    decimals = decimals.rstrip("0")
    grouped = f"{int(whole):_}" if len(whole) > 4 else whole
    return f"{grouped}.{decimals}" if decimals else grouped


def _quoted(text: str) -> str:
    """The text as a TOML string."""
    escaped = "".join(_escaped(character) for character in text)
    return f'"{escaped}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    is_control = character < " " or character == "\x7f"
    return f"\\u{ord(character):04x}" if is_control else character
