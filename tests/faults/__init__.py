"""Faults against a whole installation, and a verdict over what the books say afterwards.

``make faults ARGS="--seed 7 --seconds 60 --runs 10"``. Everything is seen from outside: real processes, real sockets, a
real Postgres. Map: ``installation`` starts and keeps the processes, with a ``network`` of our own between them that can
be cut, slowed and stalled; ``clients`` is the load, and ``buying`` tops up meanwhile; ``schedule`` draws faults from a
seed and injects them; ``evidence`` collects what the clients, the backends and the books say of each request;
``verdict`` has the rules that all three must agree under; ``campaign`` is one run of it all.
"""
