"""Money that customers bring: top-ups, the roads they come by, and what providers tell of them."""

__all__: list[str] = []
