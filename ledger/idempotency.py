"""Under which key the log remembers a command, so that the same one again has no second effect."""

from ledger.commands import (
    AdjustBalance,
    AssignDepositAddress,
    ChangeAutomaticTopup,
    ChangePlan,
    Command,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireGrant,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger.providers import (
    ChargeProcessorFee,
    FailPayout,
    InitiatePayout,
    PayPayout,
    ResolveBreak,
    provider_key_of,
)


def idempotency_key_of(command: Command) -> str | None:
    """The key under which the log remembers a command that neither a hold nor a top-up remembers.

    The prefix keeps a key that a client chose from meeting one that we derive.
    """
    match command:
        case PlaceHold() | SettleHold() | VoidHold() | ExpireHold() | ExtendHold():
            return None
        case MarkTopupPending() | CreditTopup() | ReverseTopup() | ReinstateTopup() | FailTopup() | ExpireTopup():
            return None
        case ExpireGrant():
            return None
        case RequestTopup():
            return f"topup:{command.idempotency_key}"
        case DrawHold():
            return _key_of_draw(command.hold_id, command.reference)
        case RerateCharge():
            return _key_of_correction(command, command.ordinal)
        case GrantCredit():
            return f"grant:{command.idempotency_key}"
        case AdjustBalance():
            return f"adjust:{command.idempotency_key}"
        case AssignDepositAddress():
            return f"deposit-address:{command.idempotency_key}"
        case ChangeAutomaticTopup():
            return f"automatic-topup:{command.idempotency_key}"
        case ChangePlan():
            return f"plan:{command.idempotency_key}"
        case RecordPriceEvent():
            return f"price:{command.idempotency_key}"
        case ChargeProcessorFee() | InitiatePayout() | PayPayout() | FailPayout() | ResolveBreak():
            return provider_key_of(command)
        case OpenAccount():
            return "open"
        case CreateKey():
            return f"key:{command.key_id}"
        case DeleteKey():
            return f"key-deleted:{command.key_id}"


def key_of_what_is_rerated(command: RerateCharge) -> str | None:
    """The key under which the log remembers what the command begins from: the correction before it, or the draw.

    None for the first correction of a settlement, which its hold remembers.
    """
    if command.ordinal > 1:
        return _key_of_correction(command, command.ordinal - 1)
    return None if command.reference is None else _key_of_draw(command.hold_id, command.reference)


def _key_of_draw(hold_id: str, reference: str) -> str:
    return f"draw:{hold_id}:{reference}"


def _key_of_correction(command: RerateCharge, ordinal: int) -> str:
    part = "" if command.reference is None else f":{command.reference}"
    return f"rerate:{ordinal}:{command.hold_id}{part}"
