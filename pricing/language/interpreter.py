"""One walk over the tree of an expression, and the two algebras that give it its meaning.

The walk writes code that computes each part once, on integers: the value of a number is held as
``scale_of(number)`` times itself. What a value is, the algebra says: in ``ExactAlgebra`` the code of one
number, in ``IntervalAlgebra`` the codes of the lowest and the highest that a box allows.
"""

from abc import ABC, abstractmethod
from math import lcm
from typing import Generic, TypeVar, assert_never

import msgspec

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
    can_be_negative,
    scale_of,
)
from pricing.language.rounding import round_up
from pricing.language.source import Source

V = TypeVar("V")
C = TypeVar("C")


class Algebra(ABC, Generic[V, C]):
    """Values of numbers are ``V``, of conditions ``C``; both are codes of local variables or constants."""

    def __init__(self, source: Source, keys: dict[str, V], flags: dict[str, C], texts: dict[str, str]) -> None:
        self.source = source
        self.keys = keys
        self.flags = flags
        self.texts = texts  # usage keys → the variable that holds the text
        self._ceiling = source.bind("ceiling", round_up)
        self._numbers: dict[Number, V] = {}
        self._conditions: dict[Condition, C] = {}

    def number(self, node: Number) -> V:
        """The number times its scale. Equal parts of a program are computed once."""
        if node not in self._numbers:
            self._numbers[node] = self._number(node)
        return self._numbers[node]

    def number_in(self, node: Number, scale: int) -> V:
        """The number times a multiple of its own scale."""
        return self.times(self.number(node), scale // scale_of(node))

    def condition(self, node: Condition) -> C:
        if node not in self._conditions:
            self._conditions[node] = self._condition(node)
        return self._conditions[node]

    def _number(self, node: Number) -> V:
        scale = scale_of(node)
        match node:
            case Constant(value):
                return self.constant(value.as_integer_ratio()[0])
            case Key(name):
                return self.keys[name]
            case Arithmetic("*", left, right):
                is_signed = can_be_negative(left) or can_be_negative(right)
                return self.multiply(self.number(left), self.number(right), is_signed=is_signed)
            case Arithmetic("+", left, right):
                return self.add(self.number_in(left, scale), self.number_in(right, scale))
            case Arithmetic(_, left, right):
                return self.subtract(self.number_in(left, scale), self.number_in(right, scale))
            case Divide(dividend, divisor):
                return self.times(self.number(dividend), divisor.as_integer_ratio()[1])
            case Extreme(function, arguments):
                return self.extreme(function, [self.number_in(each, scale) for each in arguments])
            case Ceil(argument):
                return self.ceil(self.number(argument), scale_of(argument))
            case Choice(condition, then, otherwise):
                chosen = self.condition(condition)
                return self.choose(chosen, self.number_in(then, scale), self.number_in(otherwise, scale))
            case _:
                assert_never(node)

    def _condition(self, node: Condition) -> C:
        match node:
            case Flag(name):
                return self.flags[name]
            case TextIs(name, text, negated):
                is_text = self.text_is(self.texts[name], self.source.bind("text", text))
                return self.negate(is_text) if negated else is_text
            case Compare(operator, left, right):
                scale = lcm(scale_of(left), scale_of(right))
                return self.compare(operator, self.number_in(left, scale), self.number_in(right, scale))
            case Not(condition):
                return self.negate(self.condition(condition))
            case Junction(operator, left, right):
                return self.join(operator, self.condition(left), self.condition(right))
            case _:
                assert_never(node)

    @abstractmethod
    def constant(self, number: int) -> V: ...

    @abstractmethod
    def times(self, value: V, factor: int) -> V:
        """Times a whole number above zero."""

    @abstractmethod
    def add(self, left: V, right: V) -> V: ...

    @abstractmethod
    def subtract(self, left: V, right: V) -> V: ...

    @abstractmethod
    def multiply(self, left: V, right: V, *, is_signed: bool) -> V: ...

    @abstractmethod
    def extreme(self, function: str, values: list[V]) -> V: ...

    @abstractmethod
    def ceil(self, value: V, scale: int) -> V: ...

    @abstractmethod
    def choose(self, condition: C, then: V, otherwise: V) -> V: ...

    @abstractmethod
    def compare(self, operator: str, left: V, right: V) -> C: ...

    @abstractmethod
    def text_is(self, variable: str, constant: str) -> C: ...

    @abstractmethod
    def negate(self, condition: C) -> C: ...

    @abstractmethod
    def join(self, operator: str, left: C, right: C) -> C: ...


class ExactAlgebra(Algebra[str, str]):
    """A number is one number, a condition is true or false."""

    def constant(self, number: int) -> str:
        return self.source.whole(number)

    def times(self, value: str, factor: int) -> str:
        return value if factor == 1 else self.source.let(f"{value} * {self.source.whole(factor)}")

    def add(self, left: str, right: str) -> str:
        return self.source.let(f"{left} + {right}")

    def subtract(self, left: str, right: str) -> str:
        return self.source.let(f"{left} - {right}")

    def multiply(self, left: str, right: str, *, is_signed: bool) -> str:
        return self.source.let(f"{left} * {right}")

    def extreme(self, function: str, values: list[str]) -> str:
        return self.source.let(f"{function}({', '.join(values)})")

    def ceil(self, value: str, scale: int) -> str:
        return self.source.let(f"{self._ceiling}({value}, {self.source.whole(scale)})")

    def choose(self, condition: str, then: str, otherwise: str) -> str:
        return self.source.let(f"{then} if {condition} else {otherwise}")

    def compare(self, operator: str, left: str, right: str) -> str:
        return self.source.let(f"{left} {operator} {right}")

    def text_is(self, variable: str, constant: str) -> str:
        return self.source.let(f"{variable} == {constant}")

    def negate(self, condition: str) -> str:
        return self.source.let(f"not {condition}")

    def join(self, operator: str, left: str, right: str) -> str:
        return self.source.let(f"{left} {operator} {right}")


class Range(msgspec.Struct, frozen=True):
    """The codes of the lowest and the highest value in the box."""

    low: str
    high: str


class Truth(msgspec.Struct, frozen=True):
    """The codes of whether a condition may be true, and whether it must be, in the box."""

    can: str
    must: str


class IntervalAlgebra(Algebra[Range, Truth]):
    """A number is a range that holds it, a condition may be undecided."""

    def constant(self, number: int) -> Range:
        return Range(self.source.whole(number), self.source.whole(number))

    def times(self, value: Range, factor: int) -> Range:
        if factor == 1:
            return value
        return self._range(*(f"{end} * {self.source.whole(factor)}" for end in (value.low, value.high)))

    def add(self, left: Range, right: Range) -> Range:
        return self._range(f"{left.low} + {right.low}", f"{left.high} + {right.high}")

    def subtract(self, left: Range, right: Range) -> Range:
        return self._range(f"{left.low} - {right.high}", f"{left.high} - {right.low}")

    def multiply(self, left: Range, right: Range, *, is_signed: bool) -> Range:
        if not is_signed:
            return self._range(f"{left.low} * {right.low}", f"{left.high} * {right.high}")
        corners = ", ".join(f"{a} * {b}" for a in (left.low, left.high) for b in (right.low, right.high))
        return self._range(f"min({corners})", f"max({corners})")

    def extreme(self, function: str, values: list[Range]) -> Range:
        lows, highs = (", ".join(getattr(value, end) for value in values) for end in ("low", "high"))
        return self._range(f"{function}({lows})", f"{function}({highs})")

    def ceil(self, value: Range, scale: int) -> Range:
        return self._range(*(f"{self._ceiling}({end}, {self.source.whole(scale)})" for end in (value.low, value.high)))

    def choose(self, condition: Truth, then: Range, otherwise: Range) -> Range:
        if condition.can == condition.must:
            code = f"{{then}} if {condition.must} else {{otherwise}}"
        else:
            # Undecided: the value may be either, so the range reaches from the lower low to the higher high.
            code = (
                f"{{then}} if {condition.must} else {{join}}({{then}}, {{otherwise}})"
                f" if {condition.can} else {{otherwise}}"
            )
        return self._range(
            code.format(then=then.low, otherwise=otherwise.low, join="min"),
            code.format(then=then.high, otherwise=otherwise.high, join="max"),
        )

    def compare(self, operator: str, left: Range, right: Range) -> Truth:
        match operator:
            case "<" | "<=":
                can, must = f"{left.low} {operator} {right.high}", f"{left.high} {operator} {right.low}"
                return Truth(self.source.let(can), self.source.let(must))
            case ">" | ">=":
                return self.compare(operator.replace(">", "<"), right, left)
            case "!=":
                return self.negate(self.compare("==", left, right))
            case _:
                can = self.source.let(f"{left.low} <= {right.high} and {right.low} <= {left.high}")
                must = self.source.let(f"{left.low} == {right.high} and {left.high} == {right.low}")
                return Truth(can, must)

    def text_is(self, variable: str, constant: str) -> Truth:
        return self._decided(f"{variable} == {constant}")

    def negate(self, condition: Truth) -> Truth:
        if condition.can == condition.must:
            return self._decided(f"not {condition.can}")
        return Truth(self.source.let(f"not {condition.must}"), self.source.let(f"not {condition.can}"))

    def join(self, operator: str, left: Truth, right: Truth) -> Truth:
        can, must = f"{left.can} {operator} {right.can}", f"{left.must} {operator} {right.must}"
        return self._decided(can) if can == must else Truth(self.source.let(can), self.source.let(must))

    def _range(self, low: str, high: str) -> Range:
        return Range(self.source.let(low), self.source.let(high))

    def _decided(self, code: str) -> Truth:
        variable = self.source.let(code)
        return Truth(variable, variable)
