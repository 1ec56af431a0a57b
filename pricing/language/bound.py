"""Writes the function that bounds the price of every usage in a box.

Law: for each usage in the box that can be priced, price ≤ bound; and on a box of one point they are equal.

Taking each charge at its worst by itself would be sound but dear: of 1,000 input tokens that may or may not be
cached it would price all 1,000 as fresh *and* all 1,000 as cached. So the charges are added up first, atom by atom
(``expressions.linear_form``): 15 × (input - cached) + 3 × cached is 15 × input - 12 × cached. The worst case of such a
sum is exact: each atom stands at its high end if its coefficient is above zero, and else at its low end.

A price that is not certain is taken at its highest before it is added: as no quantity that can be priced is below
zero, that never makes the sum too low. Only charges whose price depends on their own quantity are taken at their
worst alone, and those with a meter that might be below zero where it is not certain that they apply. Open texts
(a mode not known yet) are settled in every way, one after the other.
"""

from collections.abc import Callable
from typing import cast

import msgspec

from ledger.money import Microcents
from pricing.language.definition import Cases, Definition, Flat, Graduated, Volume
from pricing.language.expressions import Condition, Number, can_be_negative
from pricing.language.interpreter import IntervalAlgebra, Range, Truth
from pricing.language.plan import AdjustmentPlan, ChargePlan, Plan
from pricing.language.rounding import ROUNDERS
from pricing.language.source import Source
from pricing.language.tiers import highest_weight_of_cases
from pricing.language.usage import LARGEST, Span, UsageBox, span, worst_choice
from pricing.language.writer import ProgramWriter, beyond_tiers, negative_meter, no_case, nothing_charged


def compile_bound(definition: Definition, plan: Plan) -> Callable[[UsageBox], Microcents]:
    """The function that bounds a box. It raises nothing but UsageError."""
    return _BoundWriter(definition, plan, Source("bound", "box")).write()


class _BoundWriter(ProgramWriter):
    def write(self) -> Callable[[UsageBox], Microcents]:
        self.algebra = self._read()
        self.pool = _Pool(self.source, self.algebra, self.plan)
        whens = [self._truth(planned.charge.when) for planned in self.plan.charges]
        if all(planned.charge.when is not None for planned in self.plan.charges):
            possible = " or ".join(when.can for when in whens)
            self.refuse(f"not ({possible})", nothing_charged(self.definition))
        self.source.line("total = 0")
        mosts = [self._most_of(planned) for planned in self.plan.charges]
        for planned, when, most in zip(self.plan.charges, whens, mosts, strict=True):
            self._add(planned, when, most)
        self.pool.add_worst_case()
        # Below zero only when no usage of the box can be priced: its charges contradict each other.
        self.source.line("if total < 0: total = 0")
        for adjustment in self.plan.adjustments:
            self._adjust(adjustment)
        rounding = self.definition.rounding
        rounder = self.source.bind("round", ROUNDERS[rounding.mode])
        divisor = self.source.whole(self.plan.denominator * rounding.quantum_microcents)
        self.source.line(f"return {rounder}(total, {divisor}) * {self.source.whole(rounding.quantum_microcents)}")
        return cast(Callable[[UsageBox], Microcents], self.source.function())

    def _read(self) -> IntervalAlgebra:
        variables = self.fetch()
        self._settle_open_keys(variables)
        ranges: dict[str, Range] = {}
        flags: dict[str, Truth] = {}
        for key, variable in variables.items():
            match self.kinds[key]:
                case "number":
                    ranges[key] = self._read_span(key, variable)
                case "text":
                    self.check_text(key, variable)
                case "flag":
                    self.check_flag(key, variable)
                    flags[key] = Truth(variable, variable)
        return IntervalAlgebra(self.source, ranges, flags, variables)

    def _settle_open_keys(self, variables: dict[str, str]) -> None:
        settles = {
            key: None if kind == "flag" else self._texts_told_apart(key)
            for key, kind in self.kinds.items()
            if kind != "number"
        }
        if settles:
            is_open = " or ".join(f"type({variables[key]}) is frozenset" for key in settles)
            worst, names = self.source.bind("worst_choice", worst_choice), self.source.bind("settles", settles)
            self.source.line(f"if {is_open}: return {worst}({self.source.name}, box, {names})")

    def _texts_told_apart(self, key: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.definition.texts_named(key), *self.definition.values.get(key, ())]))

    def _read_span(self, key: str, variable: str) -> Range:
        span_type, largest = self.source.bind("span_type", Span), self.source.bind("largest", LARGEST)
        low, high = f"{variable}_low", f"{variable}_high"
        self.source.line(f"if type({variable}) is {span_type}: {low} = {variable}.low; {high} = {variable}.high")
        self.source.line(f"else: {low} = {high} = {variable}")
        whole = f"type({low}) is int and type({high}) is int and 0 <= {low} <= {high} <= {largest}"
        with self.source.block(f"if not ({whole}):"):
            self.go_on_exactly()
            convert = self.source.bind("span", span)
            self.source.line(f"{low}, {high} = {convert}({self.key_names[key]}, {variable})")
        return Range(low, high)

    def _truth(self, when: Condition | None) -> Truth:
        return Truth("True", "True") if when is None else self.algebra.condition(when)

    def _add(self, planned: ChargePlan, when: Truth, most: "_Most") -> None:
        if planned.charge.when is None:
            self._add_certain(planned, most)
            return
        with self.source.block(f"if {when.must}:"):
            self._add_certain(planned, most)
        if when.can == when.must:
            return
        conditions = [when.can, *(f"not {refused}" for refused, _ in most.refusals)]
        with self.source.block(f"elif {' and '.join(conditions)}:"):
            if most.weight is not None and not can_be_negative(planned.charge.meter):
                self.pool.add(planned, most.weight)
            else:
                self.source.line(f"total += {most.amount}")

    def _add_certain(self, planned: ChargePlan, most: "_Most") -> None:
        for refused, refusal in most.refusals:
            self.refuse(refused, refusal)
        if most.weight is not None:
            self.pool.add(planned, most.weight)
        else:
            self.source.line(f"total += {most.amount}")

    def _most_of(self, planned: ChargePlan) -> "_Most":
        charge, algebra = planned.charge, self.algebra
        steps = algebra.number_in(planned.quantity, planned.scale)
        refusals = []
        if can_be_negative(charge.meter):
            refusals.append((f"({algebra.number(charge.meter).high} < 0)", negative_meter(charge)))
            low, high = (self.source.let(f"max({end}, 0)") for end in (steps.low, steps.high))
            steps = Range(low, high)
        match charge.rate:
            case Flat():
                weight = self.source.whole(planned.weights[0])
                return _Most(refusals, weight, f"{steps.high} * {weight}")
            case Cases(cases):
                truths = [self._truth(case.when) for case in cases]
                can, must = (", ".join(getattr(each, name) for each in truths) for name in ("can", "must"))
                weights = self.source.bind("weights", planned.weights)
                weight = self._look_up(highest_weight_of_cases, f"{weights}, ({can},), ({must},)")
                refusals.append((f"({weight} is None)", no_case(charge)))
                return _Most(refusals, weight, f"{steps.high} * {weight}")
            case Volume(by=by) if by is not None:
                position = algebra.number_in(by, planned.by_scale)
                weight = self._look_up(planned.laid_ladder.highest_weight, f"{position.low}, {position.high}")
                refusals.append((f"({weight} is None)", beyond_tiers(charge, by)))
                return _Most(refusals, weight, f"{steps.high} * {weight}")
            case Volume():
                amount = self._look_up(planned.laid_ladder.volume_at_most, f"{steps.low}, {steps.high}")
            case Graduated(after=after):
                start = algebra.number_in(after, planned.scale)
                arguments = f"({start.low}, {start.high}), ({steps.low}, {steps.high})"
                amount = self._look_up(planned.laid_ladder.graduated_at_most, arguments)
        refusals.append((f"({amount} is None)", beyond_tiers(charge, charge.meter)))
        return _Most(refusals, None, amount)

    def _look_up(self, look_up: Callable[..., object], arguments: str) -> str:
        return self.source.let(f"{self.source.bind('look_up', look_up)}({arguments})")

    def _adjust(self, planned: AdjustmentPlan) -> None:
        """An undecided adjustment is applied if that makes the total higher."""
        when = self._truth(planned.adjustment.when)
        amount = self.source.whole(planned.amount)
        match planned.adjustment.kind:
            case "factor":
                decisive = when.can if planned.numerator > planned.denominator else when.must
                held, not_held = map(self.source.whole, (planned.numerator, planned.denominator))
                self.source.line(f"total *= {held} if {decisive} else {not_held}")
            case "minimum":
                self.source.line(f"if {when.can} and total < {amount}: total = {amount}")
            case "maximum":
                self.source.line(f"if {when.must} and total > {amount}: total = {amount}")


class _Most(msgspec.Struct, frozen=True):
    """The most that one charge costs by itself, as code."""

    refusals: list[tuple[str, tuple[str, str]]]  # when it refuses the whole box, and the key and the reason
    weight: str | None  # the highest weight of a step; None if the price depends on the quantity itself
    amount: str


class _Pool:
    """The sum of charges: for each atom its coefficient. What charges without a condition and with one price
    contribute is known here and now; the rest gathers in variables while the function runs."""

    def __init__(self, source: Source, algebra: IntervalAlgebra, plan: Plan) -> None:
        self.source = source
        self.algebra = algebra
        self.known: dict[Number, int] = {}
        self.gathered: dict[Number, str] = {}
        for planned in plan.charges:
            for atom, _ in planned.atoms:
                algebra.number(atom)
                if not _is_always(planned) and atom not in self.gathered:
                    self.gathered[atom] = source.let("0")

    def add(self, planned: ChargePlan, weight: str) -> None:
        for atom, multiplier in planned.atoms:
            if _is_always(planned):
                self.known[atom] = self.known.get(atom, 0) + multiplier * planned.weights[0]
            else:
                self.source.line(f"{self.gathered[atom]} += {weight} * {self.source.whole(multiplier)}")

    def add_worst_case(self) -> None:
        for atom in self.known | self.gathered:
            ends = self.algebra.number(atom)
            known = self.source.whole(self.known.get(atom, 0))
            if atom in self.gathered:
                coefficient = self.source.let(f"{self.gathered[atom]} + {known}")
                self.source.line(f"total += {coefficient} * ({ends.high} if {coefficient} > 0 else {ends.low})")
            elif self.known[atom]:
                self.source.line(f"total += {known} * {ends.high if self.known[atom] > 0 else ends.low}")


def _is_always(planned: ChargePlan) -> bool:
    return isinstance(planned.charge.rate, Flat) and planned.charge.when is None
