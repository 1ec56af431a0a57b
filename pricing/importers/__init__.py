"""From published price lists to price programs: LiteLLM's, pydantic's genai-prices, and Wanqing's ``priceInfo``.

Each importer is a pure function from a decoded list to programs, and names what it could not say. ``token_parts`` and
``rate_table`` are what they share: which token is inside which whole, and a price that depends on cases as charges.
"""

from pricing.importers.genai_prices import import_genai_prices
from pricing.importers.litellm import import_litellm
from pricing.importers.price_list import ImportedProgram, NotExpressed, PriceList
from pricing.importers.wanqing import import_wanqing

__all__ = [
    "ImportedProgram",
    "NotExpressed",
    "PriceList",
    "import_genai_prices",
    "import_litellm",
    "import_wanqing",
]
