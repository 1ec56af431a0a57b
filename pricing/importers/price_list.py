"""What an importer gives: programs, and by name whatever of the list they do not say."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from pricing.importers.token_parts import PARTS
from pricing.language.definition import Charge, Definition
from pricing.language.expressions import Key, keys_read
from pricing.language.format import format_definition
from pricing.language.rounding import Rounding

#: What every program may be asked to price although few lists name it. Where a list gives a part no price, the part
#: costs what its whole costs; to be so is known, not forgotten.
_COMMON_PARTS = ("cached_input_tokens", "cache_write_input_tokens", "reasoning_tokens")

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")

#: Characters of an id made here; the language allows some more.
_LONGEST_ID = 110


class ImportedProgram(msgspec.Struct, frozen=True, kw_only=True):
    model: str  # as the list names it
    id: str
    text: str  # canonical
    effective_from: date | None  # None = the list names no beginning
    is_free: bool


class NotExpressed(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the list that no program says."""

    model: str
    what: str  # the field, or "the model"
    reason: str


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """One list, imported. A model is in ``programs``, in ``unpriced``, or in neither and named in ``not_expressed``."""

    programs: tuple[ImportedProgram, ...]
    unpriced: tuple[str, ...]  # models that the list names without a price
    not_expressed: tuple[NotExpressed, ...]


def program_ids(models: Collection[str]) -> dict[str, str]:
    """Model → an id that is a safe file name, different for each even where case does not count."""
    plain = {model: _UNSAFE.sub("-", model).strip("-._+")[:_LONGEST_ID] or "model" for model in models}
    taken = Counter(id.lower() for id in plain.values())
    return {
        model: id if taken[id.lower()] == 1 else f"{id}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
        for model, id in plain.items()
    }


def program(
    model: str,
    id: str,
    charges: Sequence[Charge],
    *,
    description: str,
    texts: Mapping[str, Sequence[str]] | None = None,
    optional: Collection[str] = (),
    currency: str = "USD",
    effective_from: date | None = None,
) -> ImportedProgram:
    """The program of these charges. ``texts`` are the values of each text key, the default first.

    Parts of tokens and ``optional`` keys are 0 where a usage does not name them; all others must be there, so that
    nothing is free because nobody counted it.
    """
    charges = _without_free_output(charges)
    read = {key: kind for charge in charges for node in charge.expressions() for key, kind in keys_read(node).items()}
    zeros = [key for key, kind in read.items() if kind == "number" and (_is_part(key) or key in optional)]
    values = {key: tuple(allowed) for key, allowed in (texts or {}).items() if key in read}
    definition = Definition(
        id=id,
        currency=currency,
        description=description,
        defaults={**dict.fromkeys(zeros, Decimal(0)), **{key: allowed[0] for key, allowed in values.items()}},
        values=values,
        not_charged=tuple(_not_charged(read)),
        charges=tuple(charges),
        adjustments=(),
        rounding=Rounding(),
    )
    return ImportedProgram(
        model=model,
        id=id,
        text=format_definition(definition),
        effective_from=effective_from,
        is_free=not any(price for charge in charges for price in charge.prices()),
    )


def _without_free_output(charges: Sequence[Charge]) -> Sequence[Charge]:
    """Embeddings are listed with an output at 0. Charging it would make usages without one incomplete."""
    kept = [charge for charge in charges if charge.meter != Key("output_tokens") or any(charge.prices())]
    return kept or charges


def _is_part(key: str) -> bool:
    return len(PARTS.get(key, ())) > 1


def _not_charged(read: Mapping[str, str]) -> Iterable[str]:
    if "input_tokens" in read and "output_tokens" not in read:
        yield "output_tokens"
    for part in _COMMON_PARTS:
        whole = "output_tokens" if "output" in PARTS[part] else "input_tokens"
        if whole in read and part not in read:
            yield part
