"""The inference proxy: the table of metered operations, and the gate that every one of them passes.

A request is bounded, its bound is priced and held, it is forwarded to the least busy backend, its usage is read,
priced and settled, and only then does the last byte leave. Start reading at ``gate.py``.
"""

from inference_proxy.answers import KEPT_FOR, AnswerStore
from inference_proxy.backends import BackendConfig, BackendPool
from inference_proxy.gate import Gate
from inference_proxy.holds import Endings
from inference_proxy.metrics import flush_regularly
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.operations import CHAT_COMPLETIONS, OPERATIONS, Operation
from inference_proxy.placing import Placer
from inference_proxy.prices import PriceFeed
from inference_proxy.quote_routes import QuoteRoutes
from inference_proxy.quotes import Quoter
from inference_proxy.receipts import ReceiptRoutes
from inference_proxy.recovery import recover_regularly
from inference_proxy.refusals import translate
from inference_proxy.routes import ModelHandlers, inference_routes
from inference_proxy.terms import TermsOfAccounts
from inference_proxy.upstream import Upstream
from inference_proxy.write_ahead import WriteAheadFile

__all__ = [
    "CHAT_COMPLETIONS",
    "KEPT_FOR",
    "OPERATIONS",
    "AnswerStore",
    "BackendConfig",
    "BackendPool",
    "Endings",
    "Gate",
    "Model",
    "ModelCatalog",
    "ModelHandlers",
    "Operation",
    "Placer",
    "PriceFeed",
    "QuoteRoutes",
    "Quoter",
    "ReceiptRoutes",
    "TermsOfAccounts",
    "Upstream",
    "WriteAheadFile",
    "flush_regularly",
    "inference_routes",
    "recover_regularly",
    "translate",
]
