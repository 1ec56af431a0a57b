"""A Python function while it is being written, line by line, from a tree of ours.

Programs are compiled because they run on every request, twice. No text of a program ever becomes source: usage
keys, texts and large numbers are bound as objects under names of ours, so that the source consists of our own
words and small numbers, whatever the program says.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Larger numbers are bound as objects: Python refuses to read a number of more than 4,300 digits.
_LARGEST_WRITTEN = 10**18


class Source:
    def __init__(self, name: str, parameter: str) -> None:
        self.name = name
        self.parameter = parameter
        self._lines = [f"def {name}({parameter}, is_exact=False):"]
        self._indent = 1
        self._objects: dict[str, object] = {}
        self._locals = 0

    def line(self, code: str) -> None:
        self._lines.append("    " * self._indent + code)

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        self.line(header)
        self._indent += 1
        yield
        self._indent -= 1

    def let(self, code: str) -> str:
        """Assigns to a new local variable and returns its name."""
        self._locals += 1
        name = f"v{self._locals}"
        self.line(f"{name} = {code}")
        return name

    def bind(self, stem: str, value: object) -> str:
        """The name under which the function finds the object."""
        name = f"{stem.upper()}_{len(self._objects)}"
        self._objects[name] = value
        return name

    def whole(self, number: int) -> str:
        """The number as code."""
        return str(number) if abs(number) < _LARGEST_WRITTEN else self.bind("number", number)

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def function(self) -> Any:
        """The finished function. Nothing but the bound objects and these builtins is in its reach."""
        scope: dict[str, Any] = {"__builtins__": {}, **self._objects}
        scope |= {each.__name__: each for each in (KeyError, frozenset, int, max, min, str, type)}
        exec(compile(self.text, f"<{self.name} of a price program>", "exec"), scope)
        return scope[self.name]
