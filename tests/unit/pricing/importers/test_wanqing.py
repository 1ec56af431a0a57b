"""Wanqing's ``priceInfo``: ranges of input and output, modes, and scenes."""

from decimal import Decimal

import pytest

from pricing import UsageError
from pricing.importers import import_wanqing
from tests.unit.pricing.importers.lists import dollars, only_program


def price_info(input_range, output_range, price, outputs, scene="onlineInference"):
    return {
        "usageScene": scene,
        "inputRange": input_range,
        "outputRange": output_range,
        "pricingType": "fixed",
        "pricingTiers": [
            {
                "tierName": "default",
                "input": Decimal(price),
                "output": [{"mode": mode, "price": Decimal(each)} for mode, each in outputs.items()],
            }
        ],
    }


def instance(*price_infos, name="mi-1"):
    return {"modelInstance": {"modelInstanceId": name}, "priceInfo": list(price_infos)}


SHORT = price_info([0, 32_000], [0, 200], "0.0008", {"thinking": "0.002", "normal": "0.002"})
LONG_ANSWER = price_info([0, 32_000], [200, 8000], "0.0008", {"thinking": "0.008", "normal": "0.004"})
LONG = price_info([32_000, 128_000], [0, 8000], "0.0012", {"thinking": "0.016", "normal": "0.008"})
OFFLINE = price_info([0, 128_000], [0, 8000], "0.0004", {"thinking": "0.001", "normal": "0.001"}, scene="offline")
PROGRAM = only_program(import_wanqing, [instance(SHORT, LONG_ANSWER, LONG, OFFLINE)])


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "choice", "yuan"),
    [
        (1000, 200, {}, "0.0008 + 0.0004"),
        (1000, 200, {"mode": "thinking"}, "0.0008 + 0.0004"),
        (1000, 201, {}, "0.0008 + 0.000804"),
        (1000, 201, {"mode": "thinking"}, "0.0008 + 0.001608"),
        (0, 0, {}, "0"),
        (32_000, 0, {}, "0.0256"),
        (32_001, 0, {}, "0.0384012"),
        (128_000, 1000, {"mode": "thinking"}, "0.1536 + 0.016"),
        (128_000, 1000, {"usage_scene": "offline"}, "0.0512 + 0.001"),
    ],
)
def test_ranges_mode_and_scene_choose_the_price_of_the_whole_request(input_tokens, output_tokens, choice, yuan):
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens, **choice}

    assert sum(map(Decimal, yuan.split(" + "))) == dollars(PROGRAM, **usage)
    assert PROGRAM.currency == "CNY"


def test_the_end_of_a_range_is_in_it_in_whatever_order_the_list_names_them():
    program = only_program(import_wanqing, [instance(LONG, LONG_ANSWER, SHORT)])

    assert dollars(program, input_tokens=32_000, output_tokens=0) == Decimal("0.0256")


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(128_001, 1), (1, 8001)])
def test_a_usage_outside_of_every_range_has_no_price(input_tokens, output_tokens):
    with pytest.raises(UsageError, match="no case"):
        PROGRAM.price({"input_tokens": input_tokens, "output_tokens": output_tokens})


def test_the_modes_cost_what_they_list_wherever_the_list_comes_from():
    enveloped = {"ResponseMeta": {"RequestId": "1"}, "ResponseData": {"total": 1, "list": [instance(LONG_ANSWER)]}}

    assert import_wanqing([instance(LONG_ANSWER)]) == import_wanqing(enveloped)


@pytest.mark.parametrize(
    ("info", "what"),
    [
        ({**SHORT, "usageScene": "finetuning"}, "usageScene"),
        ({**SHORT, "pricingTiers": SHORT["pricingTiers"] * 2}, "pricingTiers"),
        (price_info([0, 10], [0, 10], "1", {"dreaming": "1"}), "output"),
        (price_info([10, 0], [0, 10], "1", {"normal": "1"}), "inputRange"),
        (price_info([0, -1], [0, 10], "1", {"normal": "1"}), "inputRange"),
        (price_info([0, 10], [0, 10], "-1", {"normal": "1"}), "pricingTiers"),
    ],
)
def test_what_cannot_be_expressed_keeps_the_model_out_and_is_named(info, what):
    price_list = import_wanqing([instance(info), instance(SHORT, name="mi-2")])

    assert [("mi-1", what)] == [(each.model, each.what) for each in price_list.not_expressed]
    assert [each.model for each in price_list.programs] == ["mi-2"]


def test_ranges_that_overlap_are_no_price():
    overlapping = price_info([16_000, 64_000], [0, 200], "0.001", {"thinking": "0.002", "normal": "0.002"})
    price_list = import_wanqing([instance(SHORT, overlapping)])

    assert {each.what for each in price_list.not_expressed} == {"inputRange"}
    assert price_list.programs == ()


def test_an_instance_without_price_info_is_named():
    assert import_wanqing([instance()]).unpriced == ("mi-1",)


@pytest.mark.parametrize("document", [{"list": [{}]}, [1], {"error": "unauthorized"}])
def test_another_document_is_refused(document):
    with pytest.raises(ValueError, match="Wanqing"):
        import_wanqing(document)
