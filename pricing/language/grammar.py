"""From the text of an expression to its tree.

    number     = sum [ "if" condition "else" number ]
    sum        = product { ("+" | "-") product }
    product    = operand { "*" operand | "/" literal above zero }
    operand    = literal | key | "(" number ")" | ("min" | "max") "(" number "," … ")" | "ceil" "(" number ")"
    condition  = clause { "or" clause }      clause = check { "and" check }
    check      = "not" check | number ("<" | "<=" | ">" | ">=" | "==" | "!=") number
               | key ("==" | "!=") "'text'" | key | "(" condition ")"

Nothing else parses. Precedence is Python's. The parser climbs it by one table and settles after each operand
whether a number or a condition was meant: both may begin with a parenthesis or a key.
"""

import re
from decimal import Decimal
from typing import Literal, NoReturn, TypeAlias, cast

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
    Kind,
    Node,
    Not,
    Number,
    TextIs,
)

#: Parts of one expression. A meter of a hundred terms is a mistake; and the cap bounds the time of one
#: evaluation and the digits of its largest number.
MAX_NODES = 128

#: Parentheses and functions inside one another: the parser recurses once for each.
MAX_NESTING = 32

#: Digits of a number before, and after, its decimal point. Beyond any price; keeps exact arithmetic cheap.
MAX_DIGITS = 30

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>\d+(?:_\d+)*(?:\.\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<text>'[^'\n]*'|"[^"\n]*")
      | (?P<symbol><=|>=|==|!=|[-+*/<>(),])
      | (?P<end>\Z)""",
    re.VERBOSE | re.ASCII,
)
RESERVED = frozenset({"if", "else", "and", "or", "not", "min", "max", "ceil", "true", "false"})
KEY_NAME = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)

_BINDING = {"or": 1, "and": 2, "not": 3, "<": 4, "<=": 4, ">": 4, ">=": 4, "==": 4, "!=": 4}
_BINDING |= {"+": 5, "-": 5, "*": 6, "/": 6}
_COMPARISON = 4


class ExpressionError(ValueError):
    """The expression does not parse. ``offset`` counts characters from its start; the reader of the program
    turns it into a ``ProgramError``."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class KeyUse(msgspec.Struct, frozen=True):
    """A usage key named in an expression, what it must be there, and where it stands."""

    name: str
    kind: Kind
    offset: int


def parse_number(text: str) -> tuple[Number, list[KeyUse]]:
    """The tree of a numeric expression and the keys it names. Raises ExpressionError."""
    parser = _Parser(text)
    return parser.as_number(parser.whole()), parser.uses


def parse_condition(text: str) -> tuple[Condition, list[KeyUse]]:
    """The tree of a condition and the keys it names. Raises ExpressionError."""
    parser = _Parser(text)
    return parser.as_condition(parser.whole()), parser.uses


class _Token(msgspec.Struct, frozen=True):
    sort: str
    text: str
    offset: int


class _Name(msgspec.Struct, frozen=True):
    """A key of which we do not know yet whether it is a number, a text or a flag."""

    name: str


class _Text(msgspec.Struct, frozen=True):
    text: str


_Operand: TypeAlias = Node | _Name | _Text


class _Parsed(msgspec.Struct, frozen=True):
    node: _Operand
    offset: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.next = 0
        self.nodes = 0
        self.nesting = 0
        self.uses: list[KeyUse] = []

    def whole(self) -> _Parsed:
        parsed = self.choice()
        if self.peek().sort != "end":
            self.fail(f"unexpected {self.peek().text!r}")
        return parsed

    def choice(self) -> _Parsed:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f"nested deeper than {MAX_NESTING} levels")
        parsed = self.binary(0)
        if self.accept("if"):
            then = self.as_number(parsed)
            condition = self.as_condition(self.binary(0))
            self.expect("else")
            otherwise = self.as_number(self.choice())
            parsed = self.made(Choice(condition, then, otherwise), parsed.offset)
        self.nesting -= 1
        return parsed

    def binary(self, binding: int) -> _Parsed:
        """An operand and all operators after it that bind tighter than ``binding``."""
        left = self.negation(binding) if self.peek().text == "not" else self.operand()
        while (operator := self.peek()).sort in ("symbol", "name"):
            tighter = _BINDING.get(operator.text, 0)
            if tighter <= binding or operator.text == "not":
                break
            self.next += 1
            left = self.joined(operator, left, self.binary(tighter))
            if tighter == _COMPARISON and _BINDING.get(self.peek().text) == _COMPARISON:
                self.fail("comparisons do not chain: join two of them with 'and'")
        return left

    def negation(self, binding: int) -> _Parsed:
        token = self.take()
        if binding >= _BINDING["not"]:
            self.fail("'not' needs parentheses here", token.offset)
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f"nested deeper than {MAX_NESTING} levels")
        inner = self.as_condition(self.binary(_BINDING["not"] - 1))
        self.nesting -= 1
        return self.made(Not(inner), token.offset)

    def joined(self, operator: _Token, left: _Parsed, right: _Parsed) -> _Parsed:
        symbol = operator.text
        node: Node
        if symbol in ("and", "or"):
            junction = cast(Literal["and", "or"], symbol)
            node = Junction(junction, self.as_condition(left), self.as_condition(right))
        elif _BINDING[symbol] == _COMPARISON:
            node = self.compared(operator, left, right)
        elif symbol == "/":
            node = Divide(self.as_number(left), self.divisor(right))
        else:
            arithmetic = cast(Literal["+", "-", "*"], symbol)
            node = Arithmetic(arithmetic, self.as_number(left), self.as_number(right))
        return self.made(node, left.offset)

    def compared(self, operator: _Token, left: _Parsed, right: _Parsed) -> Condition:
        for key, text in ((left, right), (right, left)):
            if not isinstance(text.node, _Text):
                continue
            if not isinstance(key.node, _Name) or operator.text not in ("==", "!="):
                self.fail("a text is only compared with a usage key, by == or !=", text.offset)
            self.uses.append(KeyUse(key.node.name, "text", key.offset))
            return TextIs(key.node.name, text.node.text, operator.text == "!=")
        comparison = cast(Literal["<", "<=", ">", ">=", "==", "!="], operator.text)
        return Compare(comparison, self.as_number(left), self.as_number(right))

    def divisor(self, parsed: _Parsed) -> Decimal:
        if not isinstance(parsed.node, Constant) or not parsed.node.value:
            self.fail("only a number above zero, written out, can divide", parsed.offset)
        return parsed.node.value

    def operand(self) -> _Parsed:
        token = self.take()
        if token.sort == "number":
            return self.made(Constant(self.literal(token)), token.offset)
        if token.sort == "text":
            return _Parsed(_Text(token.text[1:-1]), token.offset)
        if token.text == "(":
            inner = self.choice()
            self.expect(")")
            return _Parsed(inner.node, token.offset)
        if token.text in ("min", "max", "ceil"):
            return self.made(self.call(token), token.offset)
        if token.sort != "name" or token.text in RESERVED:
            found = repr(token.text) if token.sort != "end" else "the end"
            self.fail(f"a number, a usage key or a parenthesis is needed here, not {found}", token.offset)
        if not KEY_NAME.fullmatch(token.text):
            self.fail("a usage key has at most 100 characters", token.offset)
        return self.made(_Name(token.text), token.offset)

    def call(self, function: _Token) -> Number:
        self.expect("(")
        arguments = [self.as_number(self.choice())]
        while self.accept(","):
            arguments.append(self.as_number(self.choice()))
        self.expect(")")
        if function.text == "ceil":
            if len(arguments) != 1:
                self.fail("ceil takes one number", function.offset)
            return Ceil(arguments[0])
        if len(arguments) < 2:
            self.fail(f"{function.text} takes two numbers or more", function.offset)
        return Extreme(cast(Literal["min", "max"], function.text), tuple(arguments))

    def literal(self, token: _Token) -> Decimal:
        whole, _, decimals = token.text.replace("_", "").partition(".")
        if len(whole.lstrip("0")) > MAX_DIGITS or len(decimals) > MAX_DIGITS:
            self.fail(f"a number has at most {MAX_DIGITS} digits on each side of its point", token.offset)
        return Decimal(f"{whole}.{decimals}")

    def as_number(self, parsed: _Parsed) -> Number:
        if isinstance(parsed.node, _Name):
            self.uses.append(KeyUse(parsed.node.name, "number", parsed.offset))
            return Key(parsed.node.name)
        if isinstance(parsed.node, _Text):
            self.fail("a number is needed here, not a text", parsed.offset)
        if isinstance(parsed.node, Condition):
            self.fail("a number is needed here, not a condition", parsed.offset)
        return parsed.node

    def as_condition(self, parsed: _Parsed) -> Condition:
        if isinstance(parsed.node, _Name):
            self.uses.append(KeyUse(parsed.node.name, "flag", parsed.offset))
            return Flag(parsed.node.name)
        if not isinstance(parsed.node, Condition):
            self.fail("a condition is needed here: compare, or name a true/false key", parsed.offset)
        return parsed.node

    def made(self, node: _Operand, offset: int) -> _Parsed:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fail(f"an expression has at most {MAX_NODES} parts", offset)
        return _Parsed(node, offset)

    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self) -> _Token:
        token = self.peek()
        self.next += token.sort != "end"
        return token

    def accept(self, text: str) -> bool:
        found = self.peek().text == text and self.peek().sort in ("symbol", "name")
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            found = repr(self.peek().text) if self.peek().sort != "end" else "the end"
            self.fail(f"{text!r} is needed here, not {found}")

    def fail(self, message: str, offset: int | None = None) -> NoReturn:
        raise ExpressionError(message, self.peek().offset if offset is None else offset)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    offset = 0
    while not tokens or tokens[-1].sort != "end":
        match = _TOKEN.match(text, offset)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"{text[offset]!r} has no meaning here", offset)
        if match.lastgroup != "space":
            tokens.append(_Token(match.lastgroup, match.group(), offset))
        offset = match.end()
    return tokens
