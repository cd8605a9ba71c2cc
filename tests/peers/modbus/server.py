"""A Modbus TCP device on libmodbus, driven by JSON lines on standard input; every line is answered by one line.

    {"op": "listen"}                               → {"port": N}; again after "away": the same port
    {"op": "set", "at": 0, "words": [1, 2]}        → {}; "table": "coils", "discrete", "input" or "holding" (the default)
    {"op": "get", "at": 0, "count": 2}             → {"words": [1, 2]}; likewise
    {"op": "away"}                                 → {}; closes every connection and stops listening; the registers stay
    {"op": "drop"}                                 → {}; closes every connection and goes on listening
    {"op": "busy", "times": 3, "code": 6}          → {}; the next requests are answered with this exception
    {"op": "refuse", "from": 100, "to": 199}       → {}; requests that touch these registers are answered with exception 2
    {"op": "mute", "on": true}                     → {}; requests are read and never answered; "unit": 3 for those of one unit alone
    {"op": "delay", "ms": 300}                     → {}; each answer takes so long; "unit": 3 for those of one unit alone
    {"op": "only", "functions": [3, 6]}            → {}; any other function is answered with exception 1
    {"op": "tear", "at": 7, "from": 100, "times": 2} → {}; after each read that begins at 100 or above, register 7 grows by one, so many times
    {"op": "beat", "at": 5, "on": true}            → {}; register 5 grows by one with every request
    {"op": "serial", "device": "/dev/pts/3", "unit": 1} → {}; answers RTU frames on this line too
    {"op": "stats"}                                → {"reads": N, "writes": N, "connections": N, "log": [[function, start, count], ...], "turns": [[unit, asked, answered], ...]}
                                                     by CLOCK_MONOTONIC in seconds; answered is null where nothing was
It runs in a process of its own with nothing but the standard library and Debian's libmodbus5.
"""

import contextlib
import ctypes
import json
import os
import random
import select
import socket
import sys
import time

REGISTERS = 65536
TCP_HEADER = 7
RTU_HEADER = 1
READS = {1, 2, 3, 4}
COUNTED = {*READS, 15, 16}
MAX_ADU = 260


class Mapping(ctypes.Structure):
    _fields_ = [
        ("nb_bits", ctypes.c_int),
        ("start_bits", ctypes.c_int),
        ("nb_input_bits", ctypes.c_int),
        ("start_input_bits", ctypes.c_int),
        ("nb_input_registers", ctypes.c_int),
        ("start_input_registers", ctypes.c_int),
        ("nb_registers", ctypes.c_int),
        ("start_registers", ctypes.c_int),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    ]


def load():
    lib = ctypes.CDLL("libmodbus.so.5", use_errno=True)
    lib.modbus_new_tcp.restype = ctypes.c_void_p
    lib.modbus_new_tcp.argtypes = [ctypes.c_char_p, ctypes.c_int]
    lib.modbus_new_rtu.restype = ctypes.c_void_p
    lib.modbus_new_rtu.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int]
    lib.modbus_set_slave.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.modbus_connect.argtypes = [ctypes.c_void_p]
    lib.modbus_get_socket.argtypes = [ctypes.c_void_p]
    lib.modbus_mapping_new.restype = ctypes.POINTER(Mapping)
    lib.modbus_mapping_new.argtypes = [ctypes.c_int] * 4
    lib.modbus_tcp_listen.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.modbus_set_socket.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.modbus_receive.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.modbus_reply.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(Mapping)]
    lib.modbus_reply_exception.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
    return lib


class Device:
    def __init__(self):
        self.lib = load()
        self.map = self.lib.modbus_mapping_new(REGISTERS, REGISTERS, REGISTERS, REGISTERS)
        self.registers = self.map.contents.tab_registers
        self.tables = {
            "coils": self.map.contents.tab_bits,
            "discrete": self.map.contents.tab_input_bits,
            "input": self.map.contents.tab_input_registers,
            "holding": self.registers,
        }
        self.port = 0
        self.context = None
        self.listener = None
        self.connections = {}
        self.lines = {}
        self.busy = (0, 6)
        self.refused = []
        self.mute = False
        self.muted = set()
        self.delays = {}
        self.only = None
        self.tear = None
        self.beat = None
        self.counts = {"reads": 0, "writes": 0, "connections": 0, "log": [], "turns": []}

    def op_listen(self, _):
        while not self.port:  # none that a connection going out, or another listener, is given while this one is away
            port = random.SystemRandom().randrange(15_000, 32_000)
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                self.port = port
        self.context = self.lib.modbus_new_tcp(b"127.0.0.1", self.port)
        fd = self.lib.modbus_tcp_listen(self.context, 8)
        if fd < 0:
            return {"error": os.strerror(ctypes.get_errno())}
        self.listener = socket.socket(fileno=fd)
        return {"port": self.port}

    def op_serial(self, order):
        context = self.lib.modbus_new_rtu(order["device"].encode(), 19200, b"E", 8, 1)
        self.lib.modbus_set_slave(context, order["unit"])
        if self.lib.modbus_connect(context) < 0:
            return {"error": os.strerror(ctypes.get_errno())}
        self.lines[self.lib.modbus_get_socket(context)] = context
        return {}

    def op_set(self, order):
        table = self.tables[order.get("table", "holding")]
        for offset, word in enumerate(order["words"]):
            table[order["at"] + offset] = word
        return {}

    def op_get(self, order):
        table = self.tables[order.get("table", "holding")]
        return {"words": [table[order["at"] + offset] for offset in range(order["count"])]}

    def op_drop(self, _):
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()
        return {}

    def op_away(self, order):
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        return self.op_drop(order)

    def op_busy(self, order):
        self.busy = (order["times"], order.get("code", 6))
        return {}

    def op_refuse(self, order):
        self.refused.append((order["from"], order["to"]))
        return {}

    def op_mute(self, order):
        if "unit" in order:
            self.muted = self.muted | {order["unit"]} if order["on"] else self.muted - {order["unit"]}
        else:
            self.mute = order["on"]
        return {}

    def op_delay(self, order):
        self.delays[order.get("unit")] = order["ms"] / 1000
        return {}

    def op_only(self, order):
        self.only = set(order["functions"])
        return {}

    def op_tear(self, order):
        self.tear = order
        return {}

    def op_beat(self, order):
        self.beat = order["at"] if order["on"] else None
        return {}

    def op_stats(self, _):
        return self.counts

    def serve(self):
        stdin = sys.stdin.fileno()
        pending = b""
        while True:
            sources = [stdin, *([self.listener.fileno()] if self.listener else []), *self.connections, *self.lines]
            for fd in select.select(sources, [], [])[0]:
                if fd == stdin:
                    data = os.read(stdin, 65536)
                    if not data:
                        return
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        self.obey(json.loads(line))
                    break  # sockets may have been closed by an order
                if self.listener is not None and fd == self.listener.fileno():
                    connection, _ = self.listener.accept()
                    self.connections[connection.fileno()] = connection
                    self.counts["connections"] += 1
                elif fd in self.connections or fd in self.lines:
                    self.request(fd)

    def obey(self, order):
        answer = getattr(self, "op_" + order["op"])(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def request(self, fd):
        serial = fd in self.lines
        context, header = (self.lines[fd], RTU_HEADER) if serial else (self.context, TCP_HEADER)
        if not serial:
            self.lib.modbus_set_socket(self.context, fd)
        query = ctypes.create_string_buffer(MAX_ADU)
        length = self.lib.modbus_receive(context, query)
        if length <= 0:
            if not serial:
                self.connections.pop(fd).close()
            return
        raw = query.raw[:length]
        function = raw[header]
        start = int.from_bytes(raw[header + 1 : header + 3], "big")
        count = int.from_bytes(raw[header + 3 : header + 5], "big") if function in COUNTED else 1
        self.counts["reads" if function in READS else "writes"] += 1
        self.counts["log"].append([function, start, count])
        if self.beat is not None:
            self.grow(self.beat)
        unit = raw[header - 1]
        turn = [unit, time.monotonic(), None]
        self.counts["turns"].append(turn)
        if not self.mute and unit not in self.muted:
            time.sleep(self.delays.get(unit, self.delays.get(None, 0)))
            turn[2] = time.monotonic()
            self.answer(context, query, length, function, start, count)

    def answer(self, context, query, length, function, start, count):
        times, code = self.busy
        if times:
            self.busy = (times - 1, code)
            self.lib.modbus_reply_exception(context, query, code)
        elif self.only is not None and function not in self.only:
            self.lib.modbus_reply_exception(context, query, 1)
        elif any(first < start + count and start <= last for first, last in self.refused):
            self.lib.modbus_reply_exception(context, query, 2)
        else:
            self.lib.modbus_reply(context, query, length, self.map)
            if function == 3 and self.tear and self.tear["times"] and start >= self.tear["from"]:
                self.tear["times"] -= 1
                self.grow(self.tear["at"])

    def grow(self, register):
        self.registers[register] = (self.registers[register] + 1) & 0xFFFF


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        Device().serve()
