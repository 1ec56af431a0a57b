"""What is measured: ratios, side by side in one run, because the machines that run this are noisy.

``make bench`` prints one table and writes ``bench/results.json``: a flat object of medians beside the raw samples.
"""

__all__: list[str] = []
