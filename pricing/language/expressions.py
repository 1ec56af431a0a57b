"""The expressions of a price program, as a typed tree.

There are two sorts: a ``Number`` (a meter, an amount to tier by) and a ``Condition`` (a ``when``). A usage key is
a number, a text or a flag by the place it stands in; the grammar settles that while it parses, so that a
tree is well typed by construction. The nodes hold no positions: two texts that mean the same give equal trees.
"""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Literal, TypeAlias, assert_never

import msgspec

#: What the value of a usage key must be.
Kind: TypeAlias = Literal["number", "text", "flag"]


class Constant(msgspec.Struct, frozen=True):
    value: Decimal  # never negative


class Key(msgspec.Struct, frozen=True):
    """The number that the usage has under ``name``; never negative."""

    name: str


class Arithmetic(msgspec.Struct, frozen=True):
    operator: Literal["+", "-", "*"]
    left: "Number"
    right: "Number"


class Divide(msgspec.Struct, frozen=True):
    dividend: "Number"
    divisor: Decimal  # above zero


class Extreme(msgspec.Struct, frozen=True):
    function: Literal["min", "max"]
    arguments: tuple["Number", ...]


class Ceil(msgspec.Struct, frozen=True):
    argument: "Number"


class Choice(msgspec.Struct, frozen=True):
    """``then if condition else otherwise``"""

    condition: "Condition"
    then: "Number"
    otherwise: "Number"


class Flag(msgspec.Struct, frozen=True):
    """The usage says true under ``name``."""

    name: str


class TextIs(msgspec.Struct, frozen=True):
    """The text under ``name`` is, or with ``negated`` is not, exactly ``text``."""

    name: str
    text: str
    negated: bool


class Compare(msgspec.Struct, frozen=True):
    operator: Literal["<", "<=", ">", ">=", "==", "!="]
    left: "Number"
    right: "Number"


class Not(msgspec.Struct, frozen=True):
    condition: "Condition"


class Junction(msgspec.Struct, frozen=True):
    operator: Literal["and", "or"]
    left: "Condition"
    right: "Condition"


Number: TypeAlias = Constant | Key | Arithmetic | Divide | Extreme | Ceil | Choice
Condition: TypeAlias = Flag | TextIs | Compare | Not | Junction
Node: TypeAlias = Number | Condition

ZERO = Constant(Decimal(0))
ONE = Constant(Decimal(1))


def children(node: Node) -> tuple[Node, ...]:
    """The expressions directly inside this one, left to right."""
    match node:
        case Constant() | Key() | Flag() | TextIs():
            return ()
        case Arithmetic() | Compare() | Junction():
            return (node.left, node.right)
        case Divide():
            return (node.dividend,)
        case Extreme():
            return node.arguments
        case Ceil():
            return (node.argument,)
        case Choice():
            return (node.condition, node.then, node.otherwise)
        case Not():
            return (node.condition,)
        case _:
            assert_never(node)


def walk(node: Node) -> Iterator[Node]:
    """This expression and all inside it."""
    yield node
    for child in children(node):
        yield from walk(child)


def keys_read(node: Node) -> dict[str, Kind]:
    """The usage keys that the expression reads, in the order they are first named."""
    keys: dict[str, Kind] = {}
    for part in walk(node):
        match part:
            case Key(name):
                keys[name] = "number"
            case TextIs(name=name):
                keys[name] = "text"
            case Flag(name):
                keys[name] = "flag"
    return keys


def can_be_negative(node: Number) -> bool:
    """False when no usage makes the number negative, whatever its keys (which are never negative themselves)."""
    match node:
        case Constant() | Key():
            return False
        case Arithmetic("-"):
            return True
        case Arithmetic(_, left, right):
            return can_be_negative(left) or can_be_negative(right)
        case Divide(dividend):
            return can_be_negative(dividend)
        case Extreme("max", arguments):
            return all(can_be_negative(argument) for argument in arguments)
        case Extreme(_, arguments):
            return any(can_be_negative(argument) for argument in arguments)
        case Ceil(argument):
            return can_be_negative(argument)
        case Choice(_, then, otherwise):
            return can_be_negative(then) or can_be_negative(otherwise)
        case _:
            assert_never(node)


def scale_of(node: Number) -> int:
    """The denominator that serves every value of the number when all its keys are whole.

    ``scale_of(n) * n`` is then an integer, so that programs run on integers and never divide before the end.
    """
    match node:
        case Constant(value):
            return value.as_integer_ratio()[1]
        case Key() | Ceil():
            return 1
        case Arithmetic("*", left, right):
            return scale_of(left) * scale_of(right)
        case Arithmetic(_, left, right):
            return lcm(scale_of(left), scale_of(right))
        case Divide(dividend, divisor):
            return scale_of(dividend) * divisor.as_integer_ratio()[0]
        case Extreme(_, arguments):
            return lcm(*map(scale_of, arguments))
        case Choice(_, then, otherwise):
            return lcm(scale_of(then), scale_of(otherwise))
        case _:
            assert_never(node)


def linear_form(node: Number) -> dict[Number, Fraction]:
    """The number as a sum of coefficient × atom. An atom is a key, ``ONE``, or a part that is not linear.

    ``input_tokens - cached_tokens`` is 1 × input_tokens + (-1) × cached_tokens; ``ceil(seconds / 60)`` is one
    atom. An atom whose coefficients cancel stays, with 0.
    """
    match node:
        case Constant(value):
            return {ONE: Fraction(value)}
        case Arithmetic("*", Constant(value), other) | Arithmetic("*", other, Constant(value)):
            return _times(linear_form(other), Fraction(value))
        case Divide(dividend, divisor):
            return _times(linear_form(dividend), 1 / Fraction(divisor))
        case Arithmetic("+" | "-" as operator, left, right):
            form = linear_form(left)
            for atom, coefficient in linear_form(right).items():
                form[atom] = form.get(atom, Fraction(0)) + (coefficient if operator == "+" else -coefficient)
            return form
        case _:
            return {node: Fraction(1)}


def _times(form: dict[Number, Fraction], factor: Fraction) -> dict[Number, Fraction]:
    return {atom: coefficient * factor for atom, coefficient in form.items()}
