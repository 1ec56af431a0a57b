"""What the writers of the exact price and of the bound have in common: reading the keys, and refusing."""

from pricing.errors import UsageError
from pricing.language.definition import Charge, Definition
from pricing.language.expressions import Key, Node, keys_read, linear_form
from pricing.language.plan import Plan
from pricing.language.rounding import without_rounding
from pricing.language.source import Source
from pricing.language.usage import flag, missing, text


class ProgramWriter:
    """Writes one function of a program. Subclasses say which."""

    def __init__(self, definition: Definition, plan: Plan, source: Source) -> None:
        self.definition = definition
        self.plan = plan
        self.source = source
        self.kinds = definition.keys()
        self.key_names = {key: source.bind("key", key) for key in self.kinds}

    def fetch(self) -> dict[str, str]:
        """Reads every key of the program, whether or not a condition will need it, so that a missing key is found
        by the first request and not by the first rare one. Gives the variables that hold the values."""
        parameter = self.source.parameter
        defaults = self.definition.defaults
        required = [key for key in self.kinds if key not in defaults]
        variables: dict[str, str] = {}
        if required:
            with self.source.block("try:"):
                variables |= {key: self.source.let(f"{parameter}[{self.key_names[key]}]") for key in required}
            with self.source.block("except KeyError:"):
                refusal = self.source.bind("missing", missing)
                names = self.source.bind("required", tuple(required))
                self.source.line(f"raise {refusal}({parameter}, {names}) from None")
        for key in self.kinds:
            if key in defaults:
                default = self.source.bind("default", defaults[key])
                variables[key] = self.source.let(f"{parameter}.get({self.key_names[key]}, {default})")
        return variables

    def go_on_exactly(self) -> None:
        """Whole numbers are exact as they are, Decimals only where arithmetic may not round: for a value that is not
        a plain whole number the function calls itself there, once."""
        exactly = self.source.bind("without_rounding", without_rounding)
        again = f"{exactly}({self.source.name}, {self.source.parameter}, True)"
        self.source.line(f"if not is_exact: return {again}")

    def check_text(self, key: str, variable: str) -> None:
        allowed = self.definition.values.get(key)
        names = self.source.bind("allowed", allowed)
        check = self.source.bind("text", text)
        unknown = f" or {variable} not in {names}" if allowed is not None else ""
        self.source.line(
            f"if type({variable}) is not str{unknown}: {variable} = {check}({self.key_names[key]}, {variable}, {names})"
        )

    def check_flag(self, key: str, variable: str) -> None:
        check = self.source.bind("flag", flag)
        self.source.line(
            f"if {variable} is not True and {variable} is not False: {check}({self.key_names[key]}, {variable})"
        )

    def refuse(self, condition: str, refusal: tuple[str, str], error: type[UsageError] = UsageError) -> None:
        """Raises the error with the key and the reason if the condition holds."""
        key, reason = self.source.bind("key", refusal[0]), self.source.bind("reason", refusal[1])
        self.source.line(f"if {condition}: raise {self.source.bind('usage_error', error)}({key}, {reason})")


def negative_meter(charge: Charge) -> tuple[str, str]:
    """The key that is too large, and why the usage is refused: more was cached, say, than came in."""
    taken_off = [
        atom.name
        for atom, coefficient in linear_form(charge.meter).items()
        if coefficient < 0 and isinstance(atom, Key)
    ]
    key = taken_off[0] if taken_off else _first_key(charge.meter)
    return key, f"makes the meter of charge {charge.name!r} negative: a part is larger than its whole"


def beyond_tiers(charge: Charge, position: Node) -> tuple[str, str]:
    return _first_key(position), f"lies beyond the last tier of charge {charge.name!r}"


def no_case(charge: Charge) -> tuple[str, str]:
    keys = [key for expression in charge.expressions() for key in keys_read(expression)]
    return _joined(keys), f"no case of charge {charge.name!r} fits"


def nothing_charged(definition: Definition) -> tuple[str, str]:
    keys = [key for charge in definition.charges if charge.when is not None for key in keys_read(charge.when)]
    return _joined(keys), "no charge of the program applies"


def _first_key(node: Node) -> str:
    return next(iter(keys_read(node)), "usage")


def _joined(keys: list[str]) -> str:
    return ", ".join(dict.fromkeys(keys)) or "usage"
