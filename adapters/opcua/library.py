"""The OPC UA library, taken as untyped: its annotations hold neither its own re-exports nor its generated types."""

import struct
from typing import Any, Final

import asyncua
import asyncua.crypto.security_policies
import asyncua.crypto.uacrypto
from asyncua.common.utils import Buffer as _Buffer
from asyncua.ua.ua_binary import unpack_uatype

_asyncua: Any = asyncua

Client: Final[Any] = _asyncua.Client
ua: Final[Any] = _asyncua.ua
security_policies: Final[Any] = asyncua.crypto.security_policies
uacrypto: Final[Any] = asyncua.crypto.uacrypto


class Buffer(_Buffer):
    """Bytes that are read from front to back; the library's own reads backwards where a peer states a negative length."""

    def read(self, size: int) -> bytes:
        """The next bytes. Raises `ValueError` for a negative number, the library's error where there are not so many."""
        if size < 0:
            raise ValueError("a length is negative")
        return super().read(size)


def unpack(type_number: int, buffer: Any) -> Any:
    """One value of a built-in type from where the buffer stands, which then stands behind it. Raises `ValueError` or the library's errors."""
    try:
        return unpack_uatype(ua.VariantType(type_number), buffer)
    except struct.error as error:
        raise ValueError("a value is cut short") from error
