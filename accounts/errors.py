"""What the commands of this room raise.

AccountsError
├── EmailTaken              somebody registered with this e-mail address
├── WrongCredentials        no such e-mail address, or not its password
├── AccountNotFound         no account of this id was opened
├── KeyNotFound             the account has no such key, or it was deleted
├── ServiceTokenNotFound    no such service token, or it was revoked
├── IdempotencyKeyReused    the Idempotency-Key was used before for another request
└── TooBusy                 more passwords wait to be hashed than will be answered in time

The ledger's own errors pass through: ``ledger.Refused`` and ``ledger.LedgerUnavailable``.
"""


class AccountsError(Exception):
    """Root of what this room raises by itself. Nothing was written unless the class says so."""


class EmailTaken(AccountsError):
    """A user with this e-mail address exists, in whatever case. At most an empty account was opened."""

    def __init__(self) -> None:
        super().__init__("this e-mail address is registered already")


class WrongCredentials(AccountsError):
    """Deliberately says no more: whether the address is known is not for strangers."""

    def __init__(self) -> None:
        super().__init__("the e-mail address or the password is wrong")


class AccountNotFound(AccountsError):
    """No account of this id was opened."""

    def __init__(self, account_id: str) -> None:
        super().__init__(f"there is no account {account_id}")
        self.account_id = account_id


class KeyNotFound(AccountsError):
    """The account has no such key, or it was deleted before."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id}")
        self.key_id = key_id


class ServiceTokenNotFound(AccountsError):
    """There is no such service token, or it was revoked before."""

    def __init__(self, token_id: str) -> None:
        super().__init__(f"there is no service token {token_id}")
        self.token_id = token_id


class IdempotencyKeyReused(AccountsError):
    """The Idempotency-Key was used before for another request: another amount, reason, account or operator."""

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(f"idempotency key {idempotency_key!r} was used before for another request")
        self.idempotency_key = idempotency_key


class TooBusy(AccountsError):
    """More passwords wait to be hashed than will be answered in time. Trying again later helps."""

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__("too many logins at once")
        self.retry_after_s = retry_after_s
