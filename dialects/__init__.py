"""Surfaces that are not shaped like OpenAI's: thin translators to the rooms below, which do the work."""

from dialects.yuanjing import yuanjing_routes

__all__ = ["yuanjing_routes"]
