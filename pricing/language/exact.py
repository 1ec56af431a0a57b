"""Writes the function that prices one usage exactly.

What it writes for a program of two charges, with names in the place of numbers:

    def price(usage, is_exact=False):
        try:
            input = usage["input_tokens"]
            cached = usage["cached_input_tokens"]
        except KeyError:
            raise missing(usage, KEYS) from None
        if type(input) is not int or not 0 <= input <= LARGEST:
            if not is_exact: return without_rounding(price, usage, True)
            input = number("input_tokens", input)
        …
        fresh = input - cached
        total = 0
        if fresh < 0: raise UsageError("cached_input_tokens", REASON)
        total += fresh * 15
        total += cached * 3
        return Price(round_up(total, 1) * 1, RECEIPT, (fresh, 0, cached, 0))
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from pricing.errors import PartAboveWhole
from pricing.language.definition import Cases, Definition, Flat, Graduated, Volume
from pricing.language.expressions import can_be_negative
from pricing.language.interpreter import ExactAlgebra
from pricing.language.plan import AdjustmentPlan, ChargePlan, Plan
from pricing.language.receipt import Price, Receipt
from pricing.language.rounding import ROUNDERS
from pricing.language.source import Source
from pricing.language.usage import LARGEST, Usage, number
from pricing.language.writer import ProgramWriter, beyond_tiers, negative_meter, no_case, nothing_charged


def compile_price(definition: Definition, plan: Plan) -> Callable[[Usage], Price]:
    """The function that prices a usage. It raises nothing but UsageError."""
    return _PriceWriter(definition, plan, Source("price", "usage")).write()


class _PriceWriter(ProgramWriter):
    def write(self) -> Callable[[Usage], Price]:
        self.algebra = self._read()
        traces = [self._trace_of(planned) for planned in self.plan.charges]
        self.source.line("total = 0")
        for planned, (steps, pick) in zip(self.plan.charges, traces, strict=True):
            self._add(planned, steps, pick)
        self._refuse_if_nothing_applies()
        held = [self._adjust(planned) for planned in self.plan.adjustments]
        self._return(traces, held)
        return cast(Callable[[Usage], Price], self.source.function())

    def _read(self) -> ExactAlgebra:
        variables = self.fetch()
        largest = self.source.bind("largest", LARGEST)
        for key, variable in variables.items():
            match self.kinds[key]:
                case "number":
                    with self.source.block(f"if type({variable}) is not int or not 0 <= {variable} <= {largest}:"):
                        self.go_on_exactly()
                        convert = self.source.bind("number", number)
                        self.source.line(f"{variable} = {convert}({self.key_names[key]}, {variable})")
                case "text":
                    self.check_text(key, variable)
                case "flag":
                    self.check_flag(key, variable)
        return ExactAlgebra(self.source, variables, variables, variables)

    def _trace_of(self, planned: ChargePlan) -> tuple[str, str]:
        """The variables of the steps and of the pick. Nothing is refused yet: the charge may not apply."""
        algebra = self.algebra
        steps = algebra.number_in(planned.quantity, planned.scale)
        match planned.charge.rate:
            case Flat():
                return steps, "0"
            case Graduated(after=after):
                return steps, algebra.number_in(after, planned.scale)
            case Volume(by=by):
                position = steps if by is None else algebra.number_in(by, planned.by_scale)
                tier = self.source.bind("tier", planned.laid_ladder.tier)
                return steps, self.source.let(f"{tier}({position})")
            case Cases(cases):
                # Written from the last to the first, so that the first case that fits is the one that stays.
                pick = self.source.let(str(len(cases)))
                for index, case in reversed(list(enumerate(cases))):
                    fits = algebra.condition(case.when) if case.when is not None else "True"
                    self.source.line(f"if {fits}: {pick} = {index}")
                return steps, pick

    def _add(self, planned: ChargePlan, steps: str, pick: str) -> None:
        charge = planned.charge
        with self._if_applies(planned):
            if can_be_negative(charge.meter):
                self.refuse(f"{self.algebra.number(charge.meter)} < 0", negative_meter(charge), PartAboveWhole)
            match charge.rate:
                case Flat():
                    self.source.line(f"total += {steps} * {self.source.whole(planned.weights[0])}")
                case Volume(by=by):
                    self.refuse(f"{pick} == {len(planned.weights)}", beyond_tiers(charge, by or charge.meter))
                    self._add_picked(planned, steps, pick)
                case Cases():
                    self.refuse(f"{pick} == {len(planned.weights)}", no_case(charge))
                    self._add_picked(planned, steps, pick)
                case Graduated():
                    self._add_graduated(planned, steps, pick)

    def _add_picked(self, planned: ChargePlan, steps: str, pick: str) -> None:
        weights = self.source.bind("weights", planned.weights)
        self.source.line(f"total += {steps} * {weights}[{pick}]")

    def _add_graduated(self, planned: ChargePlan, steps: str, start: str) -> None:
        ladder = planned.laid_ladder
        end = self.source.let(f"{start} + {steps}")
        is_beyond = self.source.bind("is_beyond", ladder.is_beyond)
        self.refuse(f"{is_beyond}({end})", beyond_tiers(planned.charge, planned.charge.meter))
        graduated = self.source.bind("graduated", ladder.graduated)
        self.source.line(f"total += {graduated}({start}, {end})")

    def _adjust(self, planned: AdjustmentPlan) -> str:
        """Adjusts the total and gives the code of whether the adjustment holds."""
        when = planned.adjustment.when
        holds = "True" if when is None else self.algebra.condition(when)
        amount = self.source.whole(planned.amount)
        match planned.adjustment.kind:
            case "factor":
                numerator, denominator = map(self.source.whole, (planned.numerator, planned.denominator))
                self.source.line(f"total *= {numerator} if {holds} else {denominator}")
            case "minimum":
                self.source.line(f"if {holds} and total < {amount}: total = {amount}")
            case "maximum":
                self.source.line(f"if {holds} and total > {amount}: total = {amount}")
        return holds

    def _return(self, traces: list[tuple[str, str]], held: list[str]) -> None:
        trace = []
        for planned, (steps, pick) in zip(self.plan.charges, traces, strict=True):
            when = planned.charge.when
            trace += [steps if when is None else f"{steps} if {self.algebra.condition(when)} else None", pick]
        rounding = self.definition.rounding
        quantum = self.source.whole(rounding.quantum_microcents)
        divisor = self.source.whole(self.plan.denominator * rounding.quantum_microcents)
        rounder = self.source.bind("round", ROUNDERS[rounding.mode])
        receipt = self.source.bind("receipt", Receipt(self.definition, self.plan))
        price = self.source.bind("price", Price)
        total = f"{rounder}(total, {divisor}) * {quantum}"
        self.source.line(f"return {price}({total}, {receipt}, ({', '.join([*trace, *held])},))")

    def _refuse_if_nothing_applies(self) -> None:
        whens = [planned.charge.when for planned in self.plan.charges]
        conditions = [self.algebra.condition(when) for when in whens if when is not None]
        if len(conditions) == len(whens):
            self.refuse(f"not ({' or '.join(conditions)})", nothing_charged(self.definition))

    @contextmanager
    def _if_applies(self, planned: ChargePlan) -> Iterator[None]:
        when = planned.charge.when
        if when is None:
            yield
        else:
            with self.source.block(f"if {self.algebra.condition(when)}:"):
                yield
