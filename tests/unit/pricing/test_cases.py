"""Test cases of a program: how they are read, what they compare, and how they say that something is not so."""

import pytest

from pricing import ProgramError, parse_program
from pricing.cases import read_cases, run_case
from tests.unit.pricing.programs import CHAT, IMAGES, charge

HEAD = '[[cases]]\nname = "c"\n'
USAGE = 'usage = { input_tokens = 1000, cached_input_tokens = 400, output_tokens = 500, mode = "normal" }\n'


def differences(body: str) -> tuple[str, ...]:
    (case,) = read_cases(HEAD + body)
    result = run_case(parse_program(CHAT), case)
    assert result.is_passed == (result.differences == ())
    return result.differences


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        ("total = 0.000252", ()),
        ('total = "0.00025200"', ()),
        ("total = 0.00025201", ("costs 0.000252 USD, not 0.00025201 USD",)),
        ('refused = "mode"', ("costs 0.000252 USD, but should be refused for mode",)),
    ],
)
def test_a_total_is_exact_in_the_major_unit_of_the_currency(expected, difference):
    assert difference == differences(USAGE + expected)


@pytest.mark.parametrize(
    ("lines", "difference"),
    [
        (
            """
            { name = "input", quantity = 600, unit_price = 0.00000015, amount = 0.00009 },
            { name = "cached input", quantity = 400, unit_price = 0.00000003, amount = 0.000012 },
            { name = "output", quantity = 500, unit_price = 0.0000003, amount = 0.00015 },
            """,
            (),
        ),
        (
            """
            { name = "input", amount = 0.00009 },
            { name = "cached input", amount = 0.000012 },
            { name = "output", amount = 0.00015 },
            """,
            (),
        ),
        (
            """
            { name = "input", quantity = 601, amount = 0.00009 },
            { name = "cached input", unit_price = 3, amount = 0.000012 },
            { name = "output", amount = 0.00016 },
            """,
            (
                "has quantity 600, not 601, on the line 'input'",
                "has unit price 0.00000003, not 3, on the line 'cached input'",
                "has amount 0.00015 USD, not 0.00016 USD, on the line 'output'",
            ),
        ),
        (
            '{ name = "input", amount = 0.000252 }',
            ("has the lines ['input', 'cached input', 'output'], not ['input']",),
        ),
        ("", ("has the lines ['input', 'cached input', 'output'], not []",)),
    ],
)
def test_lines_are_compared_all_of_them_and_in_what_is_stated(lines, difference):
    assert difference == differences(f"{USAGE}total = 0.000252\nlines = [{lines}]")


def test_a_meter_that_the_program_has_not_heard_of_is_told_for_it_may_be_a_slip_of_the_pen():
    misspelt = USAGE.replace("cached_input_tokens", "cached_tokens")

    assert differences(misspelt + "total = 0.0003") == (
        "has cached_tokens, which the program neither reads nor declares not_charged",
    )


TOO_MUCH_CACHED = USAGE.replace("400", "1001")


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        ('refused = "cached_input_tokens"', ()),
        ('refused = "mode"', ("is refused for another reason than mode: cached_input_tokens: makes the meter",)),
        ("total = 1", ("is refused: cached_input_tokens: makes the meter",)),
    ],
)
def test_a_refusal_is_expected_by_its_usage_key(expected, difference):
    found = differences(TOO_MUCH_CACHED + expected)

    assert len(found) == len(difference)
    assert all(each.startswith(start) for each, start in zip(found, difference, strict=True))


def test_a_refusal_for_several_keys_is_expected_by_any_of_them():
    images = charge(IMAGES)
    usage = 'usage = { images = 1, size = "1x1", quality = "hd" }\n'

    for key, is_passed in (("size", True), ("quality", True), ("pages", False)):
        (case,) = read_cases(f'{HEAD}{usage}refused = "{key}"')
        assert is_passed == run_case(images, case).is_passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("‸", "a file of cases needs a case"),
        ("‸case = 1", "unknown key 'case'"),
        ("cases = ‸1", "must be a list of tables"),
        ("‸" + HEAD + USAGE, "either a 'total', or the usage key"),
        ("‸" + HEAD + USAGE + 'total = 1\nrefused = "a"', "either a 'total', or the usage key"),
        ("‸" + HEAD + "total = 1", "'usage' is missing here"),
        (HEAD + "usage = ‸1\ntotal = 1", "'usage' must be a table"),
        ("‸" + HEAD.replace('name = "c"\n', USAGE) + "total = 1", "'name' is missing here"),
        (HEAD + USAGE + "total = ‸0.000000001", "finer than a microcent"),
        (HEAD + USAGE + "total = ‸-1", "zero or more"),
        (HEAD + USAGE + 'refused = "a"\nlines = ‸[]', "a refused usage has no lines"),
        (HEAD + USAGE + "refused = ‸1", "'refused' must be a text"),
        (HEAD + USAGE + "total = 1\nlines = [{ ‸n = 1 }]", "unknown key 'n'"),
        (HEAD + USAGE + 'total = 1\nlines = [‸{ name = "input" }]', "'amount' is missing here"),
        (HEAD + USAGE + "total = 1 ‸2", "Expected newline"),
    ],
)
def test_a_mistake_in_a_file_of_cases_is_told_with_its_line_and_column(text, message):
    before = text[: text.index("‸")]

    with pytest.raises(ProgramError) as refused:
        read_cases(text.replace("‸", ""))

    assert message in refused.value.message
    assert (before.count("\n") + 1, len(before) - before.rfind("\n")) == (refused.value.line, refused.value.column)
