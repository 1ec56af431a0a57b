"""Numbered plain SQL, applied in order by ``tollgate migrate`` and never changed afterwards.

Names are unqualified on purpose: a rebuild applies the same files in a scratch schema to get fresh tables.
"""
