"""What every part of the bench gives back."""

import msgspec


class Measured(msgspec.Struct, frozen=True):
    """The medians of one part by figure, as ``FIGURES`` describes them, and the samples that they are of."""

    medians: dict[str, float]
    samples: object
