"""Surfaces that are not shaped like OpenAI's: thin translators to the rooms below, which do the work."""

from dialects.yuanjing import yuanjing_routes
from dialects.yuanjing_recharge import recharge_routes

__all__ = ["recharge_routes", "yuanjing_routes"]
