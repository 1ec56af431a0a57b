"""LiteLLM's price list (model_prices_and_context_window.json), read as its own calculator reads it.

``litellm_rates`` knows the prices of tokens, ``litellm_units`` those of everything else. Each field with a price is
either in the program or named as not expressed.
"""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from pricing.importers import litellm_rates, litellm_units
from pricing.importers.litellm_rates import Entry
from pricing.importers.off_peak import knows_calendar
from pricing.importers.price_list import ImportedProgram, NotExpressed, PriceList, program, program_ids
from pricing.importers.rate_table import token_charges
from pricing.language.definition import Charge

#: An entry that explains the fields.
_SAMPLE = "sample_spec"

#: Fields that look like prices and add nothing to the others.
_NO_PRICES = {
    "input_dbu_cost_per_token",  # the same price in Databricks' own unit
    "output_dbu_cost_per_token",
    "input_cost_per_token_cache_hit",  # an older name of cache_read_input_token_cost, always beside it
}


def import_litellm(document: Any, *, provider: str | None = None) -> PriceList:
    """The programs of all models, or of one ``litellm_provider``, in the order of the list.

    ``document`` is the decoded JSON with its numbers as int and Decimal. Raises ValueError when it is another document.
    """
    entries = _entries(document)
    chosen = {m: entry for m, entry in entries.items() if provider in (None, entry.get("litellm_provider"))}
    ids = program_ids(entries)
    programs: list[ImportedProgram] = []
    unpriced: list[str] = []
    not_expressed: list[NotExpressed] = []
    for model, entry in chosen.items():
        if not _priced_fields(entry):
            unpriced.append(model)
            continue
        charges = _charges(entry)
        not_expressed += _left_out(model, entry, has_program=bool(charges))
        if charges:
            programs.append(_program(model, ids[model], entry, charges))
    return PriceList(programs=tuple(programs), unpriced=tuple(unpriced), not_expressed=tuple(not_expressed))


def _entries(document: Any) -> dict[str, Entry]:
    if not isinstance(document, Mapping) or not all(isinstance(entry, Mapping) for entry in document.values()):
        raise ValueError("this is not LiteLLM's price list: an object of models is needed")
    for model, entry in document.items():
        for field in _priced_fields(entry):
            if not _is_price(entry[field]):
                raise ValueError(f"{field} of {model} is no price in LiteLLM's list: {entry[field]!r}")
    return {model: entry for model, entry in document.items() if model != _SAMPLE}


def _is_price(value: Any) -> bool:
    """Whether it is a number, zero or more, or made of such; names and hours may stand among them."""
    if isinstance(value, Mapping):
        return _is_price(list(value.values()))
    if isinstance(value, list):
        return all(isinstance(each, str) or _is_price(each) for each in value)
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value >= 0


def _charges(entry: Entry) -> list[Charge]:
    """Tokens at 0 are charged only where nothing else is: elsewhere they say that something else is sold."""
    units = litellm_units.unit_charges(entry)
    rows = litellm_rates.token_rows(entry)
    if not rows or (units and not litellm_units.has_token_prices(entry)):
        return units
    return [*token_charges(rows), *units]


def _program(model: str, id: str, entry: Entry, charges: list[Charge]) -> ImportedProgram:
    return program(
        model,
        id,
        charges,
        description=f"{model} of {entry.get('litellm_provider', 'an unnamed provider')}, as LiteLLM lists it",
        texts=litellm_rates.texts(entry) | litellm_units.texts(entry),
        optional=litellm_units.optional_keys(entry),
    )


def _priced_fields(entry: Entry) -> Collection[str]:
    return [
        field
        for field, value in entry.items()
        if ("cost" in field or "pricing" in field) and value not in (None, []) and field not in _NO_PRICES
    ]


def _left_out(model: str, entry: Entry, *, has_program: bool) -> Iterator[NotExpressed]:
    if not has_program:
        yield NotExpressed(model=model, what="the model", reason="none of its prices is of a kind we know")
    for field in _priced_fields(entry):
        reason = litellm_units.reason_left_out(entry, field)
        if reason is not None and not litellm_rates.is_token_field(field):
            yield NotExpressed(model=model, what=field, reason=reason)
    if not knows_calendar(entry.get("off_peak_pricing") or {}):
        yield NotExpressed(model=model, what="off_peak_pricing", reason="the calendar of its weekdays is not known")
    if "search_free_requests" in entry:
        reason = "a free allowance of a day or month, shared by several models, is not in one request's usage"
        yield NotExpressed(model=model, what="search_free_requests", reason=reason)
