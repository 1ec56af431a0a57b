"""A GPU inference backend without a GPU: a process of its own that speaks vLLM's OpenAI-compatible HTTP.

Run it with ``python -m simulated_backend --port 0``; it prints ``{"port": N}`` when it listens. It imports nothing of
Tollgate. What it answers is a pure function of the request, it can misbehave in every way that has cost a proxy money,
and it keeps the ground truth of what it computed, so that a bill can be checked against it.

Map, from the socket inwards: ``connection`` speaks HTTP/1.1; ``server`` has the routes; ``serving`` takes a chat
completion from its request to its journal line; ``answering`` sends it; ``chat`` words it as vLLM does; ``tokenizing``
counts without generating; ``generation`` is the model, the tokenizer and the prompt cache; ``faults`` is the list of
what can be made to go wrong; ``journal`` the ground truth (GET ``/_simulator/requests``), and ``signatures`` the proof
that nobody has altered it.
"""

__all__: list[str] = []
