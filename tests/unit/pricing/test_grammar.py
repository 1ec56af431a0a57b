"""Which expressions parse, to what, and what is said about those that do not."""

import pytest

from pricing.language.expressions import keys_read
from pricing.language.format import format_expression
from pricing.language.grammar import MAX_NESTING, MAX_NODES, ExpressionError, parse_condition, parse_number


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1_000_000", "1_000_000"),
        ("0.1500", "0.15"),
        ("007", "7"),
        ("a+b*c", "a + b * c"),
        ("(a+b)*c", "(a + b) * c"),
        ("((a))", "a"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("a*(b*c)", "a * (b * c)"),
        ("a/60*2", "a / 60 * 2"),
        ("2*(a/60)", "2 * (a / 60)"),
        ("(a+b)/2.5", "(a + b) / 2.5"),
        ("min(a,b , 3)", "min(a, b, 3)"),
        ("max(a if x else b, 1)", "max(a if x else b, 1)"),
        ("ceil((a)/60)", "ceil(a / 60)"),
        ("a if x else b if y else c", "a if x else b if y else c"),
        ("(a if x else b) if y else c", "(a if x else b) if y else c"),
        ("(a if x else b) + 1", "(a if x else b) + 1"),
        ("a if b > 1 and m == 'x' else 2", "a if b > 1 and m == 'x' else 2"),
    ],
)
def test_numbers_follow_the_precedence_of_python(text, canonical):
    tree, _ = parse_number(text)

    assert canonical == format_expression(tree)
    assert tree == parse_number(canonical)[0]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("x", "x"),
        ("a<1", "a < 1"),
        ("a + 1 >= b * 2", "a + 1 >= b * 2"),
        ("x or y and z", "x or y and z"),
        ("(x or y) and z", "(x or y) and z"),
        ("x or (y or z)", "x or (y or z)"),
        ("not x and y", "not x and y"),
        ("not (x and y)", "not (x and y)"),
        ("not not x", "not not x"),
        ("not a == 1", "not a == 1"),
        ("'t' == m", "m == 't'"),
        ('m != "it\'s"', 'm != "it\'s"'),
        ("(m) == 't'", "m == 't'"),
        ("(a if x else b) < 3", "(a if x else b) < 3"),
    ],
)
def test_conditions_follow_the_precedence_of_python(text, canonical):
    tree, _ = parse_condition(text)

    assert canonical == format_expression(tree)
    assert tree == parse_condition(canonical)[0]


def test_a_key_is_a_number_a_text_or_a_flag_by_where_it_stands():
    tree, _ = parse_condition("hours + 1 > 2 and (mode == 'x' or not audio)")

    assert keys_read(tree) == {"hours": "number", "mode": "text", "audio": "flag"}


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "needed here, not the end"),
        ("a +", 3, "needed here, not the end"),
        ("a b", 2, "unexpected 'b'"),
        ("(a", 2, "')' is needed here, not the end"),
        ("a)", 1, "unexpected ')'"),
        ("-a", 0, "not '-'"),
        ("a ** 2", 3, "not '*'"),
        ("a // 2", 3, "not '/'"),
        ("a % 2", 2, "'%' has no meaning"),
        ("a / b", 4, "only a number above zero"),
        ("a / 0", 4, "only a number above zero"),
        ("a / (1 + 1)", 4, "only a number above zero"),
        ("1e6", 1, "unexpected 'e6'"),
        ("5x", 1, "unexpected 'x'"),
        (".5", 0, "'.' has no meaning"),
        ("1__0", 1, "unexpected '__0'"),
        ("a.b", 1, "'.' has no meaning"),
        ("a[0]", 1, "'[' has no meaning"),
        ("abs(a)", 3, "unexpected '('"),
        ("min(a)", 0, "min takes two numbers or more"),
        ("ceil(a, b)", 0, "ceil takes one number"),
        ("ceil()", 5, "not ')'"),
        ("min", 3, "'(' is needed here"),
        ("lambda: 1", 6, "':' has no meaning"),
        ("a if x", 6, "'else' is needed here"),
        ("a if b + 1 else c", 5, "a condition is needed here"),
        ("a < 1", 0, "not a condition"),
        ("a and b", 0, "not a condition"),
        ("'x'", 0, "not a text"),
        ("m + 'x'", 4, "not a text"),
        ("not x", 0, "not a condition"),
        ("1 + not x", 4, "'not' needs parentheses"),
        ("true", 0, "not 'true'"),
        ("a # b", 2, "'#' has no meaning"),
        ("ä", 0, "'ä' has no meaning"),
        ("1" * 31, 0, "at most 30 digits"),
        ("0." + "1" * 31, 0, "at most 30 digits"),
        ("k" * 101, 0, "at most 100 characters"),
        ("(" * 50 + "a" + ")" * 50, MAX_NESTING, "nested deeper"),
        ("+".join(["a"] * 100), 0, f"at most {MAX_NODES} parts"),
    ],
)
def test_nothing_else_parses_as_a_number(text, offset, message):
    with pytest.raises(ExpressionError) as refused:
        parse_number(text)

    assert message in refused.value.message
    assert offset == refused.value.offset


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("a < b < c", 6, "do not chain"),
        ("m < 'x'", 4, "only compared with a usage key"),
        ("'x' == 'x'", 7, "only compared with a usage key"),
        ("a + 1 == 'x'", 9, "only compared with a usage key"),
        ("1", 0, "a condition is needed here"),
        ("x and 1", 6, "a condition is needed here"),
        ("a = 1", 2, "'=' has no meaning"),
        ("m == 'x", 5, '"\'" has no meaning'),
        ("m is x", 2, "unexpected 'is'"),
        ("not " * 40 + "x", 4 * MAX_NESTING, "nested deeper"),
    ],
)
def test_nothing_else_parses_as_a_condition(text, offset, message):
    with pytest.raises(ExpressionError) as refused:
        parse_condition(text)

    assert message in refused.value.message
    assert offset == refused.value.offset
