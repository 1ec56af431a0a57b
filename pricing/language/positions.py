"""Where each value of a TOML text stands, so that an error can name its line and column.

``tomllib`` gives the values but not their places. The text is known to be valid TOML when it comes here, so that
this scanner only has to find where things begin and end, never to judge them.
"""

import re
from typing import TypeAlias

#: From the root to a value: names of tables and keys, and numbers in arrays.
Path: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_OPENING = re.compile(r'(?:"""|\'\'\')(?:\r?\n)?|"|\'')
_PLAIN = re.compile(r"[^,\]}\n#]*")
_KEY_PART = re.compile(r"[A-Za-z0-9_-]+")


class Positions:
    """The offset of every key, value, table header and array element of a TOML text, by its path."""

    def __init__(self, text: str) -> None:
        scanner = _Scanner(text)
        scanner.document()
        self._text = text
        self._values = scanner.values
        self._keys = scanner.keys

    def of_value(self, path: Path) -> tuple[int, int]:
        """Line and column of the value, or of the nearest thing around it that the text spells out."""
        return self._place(self._values, path)

    def of_key(self, path: Path) -> tuple[int, int]:
        return self._place(self._keys, path)

    def within(self, path: Path, value: str, offset: int) -> tuple[int, int]:
        """Line and column of character ``offset`` of the string ``value`` at the path.

        Exact unless the string has escapes; then the start of the string has to do.
        """
        start = self._values.get(path, 0)
        opening = _OPENING.match(self._text, start)
        if opening is None or not self._text.startswith(value, opening.end()):
            return self.of_value(path)
        return _line_and_column(self._text, opening.end() + offset)

    def _place(self, offsets: dict[Path, int], path: Path) -> tuple[int, int]:
        while path and path not in offsets:
            path = path[:-1]
            offsets = self._values
        return _line_and_column(self._text, offsets.get(path, 0))


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Both count from 1; the column counts characters."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.values: dict[Path, int] = {}
        self.keys: dict[Path, int] = {}
        self.lengths: dict[Path, int] = {}  # of the arrays of tables seen so far

    def document(self) -> None:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)

    def header(self) -> Path:
        start = self.at
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.at += brackets
        path: Path = ()
        names = self.key()
        for index, name in enumerate(names):
            path = (*path, name)
            if brackets == 2 and index == len(names) - 1:
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        self.at += brackets
        self.values[path] = self.keys[path] = start
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path: Path = table
        for name in self.key():
            path = (*path, name)
            self.keys.setdefault(path, start)
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def key(self) -> list[str]:
        names = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                names.append(self.skip(_STRING)[1:-1])
            else:
                names.append(self.skip(_KEY_PART))
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return names
            self.at += 1

    def value(self, path: Path) -> None:
        self.values[path] = self.at
        opening = self.text[self.at]
        if opening in "\"'":
            self.skip(_STRING)
        elif opening in "[{":
            self.group(path, "]" if opening == "[" else "}")
        else:
            self.skip(_PLAIN)

    def group(self, path: Path, closing: str) -> None:
        self.at += 1
        count = 0
        self.skip(_BLANK)
        while self.text[self.at] != closing:
            if closing == "]":
                self.value((*path, count))
            else:
                self.pair(path)
            count += 1
            self.skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
                self.skip(_BLANK)
        self.at += 1

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or (match.end() == self.at and pattern not in (_BLANK, _SPACE)):
            raise ValueError(f"the scanner lost its way at offset {self.at}")
        self.at = match.end()
        return match.group()
