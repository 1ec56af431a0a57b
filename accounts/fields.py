"""The texts that requests carry, as types: what is not of its type is refused before a handler sees it.

NUL is refused everywhere, because Postgres has no place for it. ``(?!\\n)`` after ``$`` because ``$`` alone also
matches before a last line feed.
"""

from typing import Annotated

from msgspec import Meta

#: Printable ASCII around one @: whether an address exists only a letter to it can tell. ASCII, because "the same
#: address in another case" must mean the same to Python, to Postgres and to every mail server.
Email = Annotated[str, Meta(max_length=254, pattern=r"^[!-?A-~]+@[!-?A-~]+$(?!\n)", description="an e-mail address")]

#: One line that begins with something to see.
Name = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$(?!\n)")]

Reason = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$(?!\n)")]

#: The upper end bounds the work of hashing, the lower one is NIST SP 800-63B.
NewPassword = Annotated[str, Meta(min_length=8, max_length=1024, pattern=r"^[^\x00]*$")]

#: Of what may or may not exist: no rule tells a stranger more than "there is none".
Claim = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00]*$")]
