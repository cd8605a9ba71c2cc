"""The OPC UA library, taken as untyped: its annotations hold neither its own re-exports nor its generated types."""

from typing import Any, Final

import asyncua
import asyncua.crypto.security_policies
import asyncua.crypto.uacrypto

_asyncua: Any = asyncua

Client: Final[Any] = _asyncua.Client
ua: Final[Any] = _asyncua.ua
security_policies: Final[Any] = asyncua.crypto.security_policies
uacrypto: Final[Any] = asyncua.crypto.uacrypto
