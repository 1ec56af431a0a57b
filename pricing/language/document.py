"""A TOML text as tables that hand out values of one type, or say at which line and column they are not.

Numbers are exact: TOML floats are read as decimals, and a number may also be written as a string.
"""

import re
import tomllib
from collections.abc import Collection, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from pricing.errors import ProgramError
from pricing.language.grammar import MAX_DIGITS
from pricing.language.positions import Path, Positions

#: Characters of a program. A long price list of images has some ten thousand; parsing must stay quick.
MAX_TEXT = 200_000

#: No key of a program has more than two.
MAX_KEY_PARTS = 32

_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_NUMBER = re.compile(r"\d+(?:_\d+)*(?:\.\d+)?", re.ASCII)
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Document:
    """The TOML text of a program. Raises ProgramError if it is not TOML."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_TEXT:
            raise ProgramError(f"a program has at most {MAX_TEXT} characters", 1, 1)
        self._refuse_long_keys()
        try:
            self.root = Table(self, (), tomllib.loads(text, parse_float=_decimal))
        except RecursionError:
            raise ProgramError("values are nested too deep", 1, 1) from None
        except ValueError as error:
            raise self._not_toml(str(error)) from None

    def _refuse_long_keys(self) -> None:
        """The time of reading a dotted key rises with the square of its parts."""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if max(part.count(".") for part in _QUOTED.sub("", line).split("=")) > MAX_KEY_PARTS:
                raise ProgramError(f"a key has more than {MAX_KEY_PARTS} parts", number, 1)

    def fail(self, path: Path, message: str) -> NoReturn:
        raise ProgramError(message, *Positions(self.text).of_value(path))

    def fail_at_key(self, path: Path, message: str) -> NoReturn:
        raise ProgramError(message, *Positions(self.text).of_key(path))

    def fail_within(self, path: Path, value: str, offset: int, message: str) -> NoReturn:
        raise ProgramError(message, *Positions(self.text).within(path, value, offset))

    def _not_toml(self, message: str) -> ProgramError:
        place = _TOML_PLACE.search(message)
        if place is None:
            return ProgramError(message, 1, 1)
        if place[1] is not None:
            return ProgramError(message[: place.start()], int(place[1]), int(place[2]))
        lines = self.text.split("\n")
        return ProgramError(message[: place.start()] + " before the end", len(lines), len(lines[-1]) + 1)


class Table:
    """One table of the document, at ``path``."""

    def __init__(self, document: Document, path: Path, values: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.values = values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def fail(self, key: str, message: str) -> NoReturn:
        """Points at the value under the key, or at the table if it has none."""
        self.document.fail((*self.path, key), message)

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                self.document.fail_at_key((*self.path, key), f"unknown key {key!r}; known here are {', '.join(known)}")

    def need(self, key: str) -> Any:
        if key not in self.values:
            self.document.fail(self.path, f"{key!r} is missing here")
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.need(key)
        if not isinstance(value, str) or not value.strip():
            self.fail(key, f"{key!r} must be a text")
        return value

    def one_of(self, key: str, choices: Collection[str]) -> str:
        value = self.need(key)
        if value not in choices:
            self.fail(key, f"{key!r} must be one of {', '.join(choices)}")
        return str(value)

    def number(self, key: str) -> Decimal:
        """An exact number, zero or more."""
        value = self.need(key)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = _decimal(value)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            self.fail(key, f"{key!r} must be a number")
        number = Decimal(value)
        if not number.is_finite() or (number and number < 0):
            self.fail(key, f"{key!r} must be a finite number, zero or more")
        if number >= Decimal(10) ** MAX_DIGITS or number.as_tuple().exponent < -MAX_DIGITS:  # type: ignore[operator]
            self.fail(key, f"{key!r} has more than {MAX_DIGITS} digits on one side of its point")
        return number.copy_abs()

    def positive(self, key: str) -> Decimal:
        number = self.number(key)
        if not number:
            self.fail(key, f"{key!r} must be above zero")
        return number

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, each once."""
        value = self.need(key)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            self.fail(key, f"{key!r} must be a list of texts")
        if len(set(value)) < len(value):
            self.fail(key, f"{key!r} names a text twice")
        return tuple(value)

    def table(self, key: str) -> "Table":
        """The table under the key; an empty one if there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, f"{key!r} must be a table")
        return Table(self.document, (*self.path, key), value)

    def tables(self, key: str, at_most: int) -> Iterator["Table"]:
        """The tables of the list under the key; none if there is no list."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.fail(key, f"{key!r} must be a list of tables")
        if len(value) > at_most:
            self.document.fail((*self.path, key, at_most), f"there are more than {at_most} {key!r}")
        for index, each in enumerate(value):
            yield Table(self.document, (*self.path, key, index), each)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.replace("_", ""))
    except InvalidOperation:
        # An exponent beyond what Decimal can hold: whoever reads the number says where it stands.
        return Decimal("Infinity")
