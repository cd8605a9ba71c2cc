"""Wrong answers of a Modbus device, made of right ones on their way through a fault proxy (`rewrite`)."""

HEADER = 7  # transaction, protocol, length, unit
READ = 3


def one_register_less(frame):
    """A well-formed answer to a read, for one register fewer than it was asked for."""
    if len(frame) < HEADER + 4 or frame[HEADER] != READ:
        return frame
    length = int.from_bytes(frame[4:6], "big") - 2
    return frame[:4] + length.to_bytes(2, "big") + frame[6:8] + bytes([frame[8] - 2]) + frame[9:-2]


def another_unit(frame):
    """An answer of unit 2."""
    return frame[:6] + b"\2" + frame[7:]


def a_byte_missing(frame):
    """The last byte is missing."""
    return frame[:-1]
