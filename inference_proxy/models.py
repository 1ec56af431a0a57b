"""The models for sale: what a hold must know about each, and what ``GET /v1/models`` says of it."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec

from wire import ApiError

Positive = Annotated[int, msgspec.Meta(ge=1)]

#: How it is known what a client got of a stream that broke off: its backends count along on every chunk on request
#: (vLLM, SGLang); they count on demand what they are shown (``POST /tokenize``); or they are listened to on to the end.
PartialUsage = Literal["continuous", "tokenize", "drain"]


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model as configured. The limits bound what a request can cost, so they must be what the backends enforce."""

    id: str
    context_length: Positive  # tokens of prompt and answer together
    max_output_tokens: Positive | None = None  # None = what the context leaves
    default_output_tokens: Positive | None = None  # for requests that name no limit; None = max_output_tokens
    template_tokens: Annotated[int, msgspec.Meta(ge=0)] = 256  # what the chat template adds to a prompt at most
    hold_slice_tokens: Positive = 1024  # of one answer: a stream's hold begins with so many and grows by as many
    partial_usage: PartialUsage = "continuous"
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0  # how long "drain" listens after its client has gone
    owned_by: str = "tollgate"
    licence: str | None = None

    @property
    def output_limit(self) -> int:
        """The most tokens one answer can have."""
        return min(self.max_output_tokens or self.context_length, self.context_length)

    @property
    def output_default(self) -> int:
        """The limit that is forwarded for a request which names none."""
        return min(self.default_output_tokens or self.output_limit, self.output_limit)


class ModelCatalog:
    """The models by id."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.id: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, model_id: str) -> Model:
        """The model of this id. Raises ApiError model_not_found."""
        model = self._models.get(model_id)
        if model is None:
            raise ApiError("model_not_found", f"there is no model {model_id[:200]!r}", param="model")
        return model
