"""The language of price programs: from a text to what a usage costs, and to the most that a usage can cost.

``reader`` parses a text, with ``document`` (TOML values and their places) and ``grammar`` (expressions), into one tree:
``definition`` and ``expressions``. ``plan`` lays the tree out in whole numbers; ``exact`` and ``bound`` then compile it
twice, by the two algebras of ``interpreter``: to the exact price of a usage, and to an upper bound over a box of
usages, which is what a hold sets aside. ``receipt`` makes the invoice lines, ``format`` writes the tree back as text.
"""
