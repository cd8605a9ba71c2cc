"""The OPC UA library, taken as untyped: its annotations hold neither its own re-exports nor its generated types."""

import struct
from typing import Any, Final

import asyncua
import asyncua.crypto.security_policies
import asyncua.crypto.uacrypto
from asyncua.common.utils import Buffer as _Buffer
from asyncua.ua import ua_binary as _binary
from asyncua.ua.ua_binary import unpack_uatype

_asyncua: Any = asyncua

Client: Final[Any] = _asyncua.Client
ua: Final[Any] = _asyncua.ua
security_policies: Final[Any] = asyncua.crypto.security_policies
uacrypto: Final[Any] = asyncua.crypto.uacrypto


_array_reader: Final[Any] = _binary._create_uatype_array_deserializer  # noqa: SLF001 - the library has no other door


def _bounded_array_reader(kind: Any) -> Any:
    """Elements of every type but Null take bytes, so that a message bounds their number; two thousand million nulls fit into five bytes."""
    reader = _array_reader(kind)
    if kind != ua.VariantType.Null:
        return reader

    def read(data: Any) -> Any:
        if _binary.Primitives.Int32.unpack(data) > 0:
            raise ua.UaError("a list of nothing")
        return []

    return read


setattr(_binary, _array_reader.__name__, _bounded_array_reader)


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
