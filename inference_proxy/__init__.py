"""The inference proxy: the table of metered operations, and the gate that every one of them passes.

A request is bounded, its bound is priced and held, it is forwarded to the least busy backend, its usage is read,
priced and settled, and only then does the last byte leave. Start reading at ``gate.py``.
"""

from inference_proxy.backends import BackendConfig, BackendPool
from inference_proxy.gate import Gate
from inference_proxy.metrics import flush_regularly
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.operations import OPERATIONS, Operation
from inference_proxy.prices import PriceFeed
from inference_proxy.refusals import translate
from inference_proxy.routes import ModelHandlers, inference_routes

__all__ = [
    "OPERATIONS",
    "BackendConfig",
    "BackendPool",
    "Gate",
    "Model",
    "ModelCatalog",
    "ModelHandlers",
    "Operation",
    "PriceFeed",
    "flush_regularly",
    "inference_routes",
    "translate",
]
