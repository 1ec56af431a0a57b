"""The composition root: settings, the processes and their lifecycles, the command line, and the demo.

Everything is built here and handed down; no other room imports this one.
"""

__all__: list[str] = []
