"""What the interpreter and the journal do while something else is tried: opened files, connections, processes, statements."""

import sys
import threading
from contextlib import contextmanager

import apsw

# PEP 578: whatever opens, connects, starts or loads something says so under one of these names.
WORDS = ("open", "socket.", "sqlite3.", "os.", "subprocess.", "urllib.", "http.", "ftplib.", "smtplib.", "shutil.", "glob.", "ctypes.", "mmap.", "pty.", "import", "exec", "compile")  # fmt: skip
_HEARING = threading.local()


def _hear(event, arguments):
    seen = getattr(_HEARING, "seen", None)
    if seen is not None and event.startswith(WORDS):
        seen.append((event, *map(repr, arguments)))


_HOOKED = []


@contextmanager
def audited(monkeypatch, owner, name):
    """The audit events of each call of this method, in its own thread; a hook stays for the life of the interpreter, so there is one."""
    if not _HOOKED:
        sys.addaudithook(_hear)
        _HOOKED.append(True)
    real, seen = getattr(owner, name), []

    def called(*args, **named):
        _HEARING.seen = seen
        try:
            return real(*args, **named)
        finally:
            _HEARING.seen = None

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, called)
        yield seen


def traced_journal(monkeypatch):
    """Every statement on every connection to SQLite that is opened from now on."""
    statements = []

    def note(_, sql, __):
        statements.append(sql)
        return True

    def hook(connection):
        connection.exec_trace = note

    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, hook])
    return statements
