"""A private PostgreSQL server for the tests: Debian's, in a directory of its own, reached by a UNIX socket, durable as in production."""

import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from bridge.journal import pg_opening
from bridge.journal.pg_server import Server
from bridge.secret import Secret

BIN = Path("/usr/lib/postgresql/15/bin")
LIMIT_S = 60
USER = "smp"
# Wiping a journal that was used takes a tenth of the time that making one takes. What a new journal holds is kept aside.
KEEP = """
DO $$ DECLARE t text; filled boolean; BEGIN
    CREATE SCHEMA pristine;
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'smp_bridge' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM smp_bridge.%I)', t) INTO filled;
        IF filled THEN EXECUTE format('CREATE TABLE pristine.%I AS SELECT * FROM smp_bridge.%I', t, t); END IF;
    END LOOP;
END $$"""
WIPE = """
DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'smp_bridge' LOOP
        EXECUTE format('DELETE FROM smp_bridge.%I', t);
    END LOOP;
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'pristine' LOOP
        EXECUTE format('INSERT INTO smp_bridge.%I SELECT * FROM pristine.%I', t, t);
    END LOOP;
    FOR t IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'smp_bridge' LOOP
        EXECUTE format('ALTER SEQUENCE smp_bridge.%I RESTART', t);
    END LOOP;
END $$"""
END_OTHERS = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Cluster:
    """One server. `start`, `stop` and `kill` may be called again and again; `remove` ends it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="smp-bridge-pg-"))
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._run_as: list[str] = []
        self._databases = itertools.count(1)
        self._used: list[str] = []
        self.port = 5432
        if os.geteuid() == 0:  # the server refuses to run as root
            postgres = pwd.getpwnam("postgres")
            os.chown(self.directory, postgres.pw_uid, postgres.pw_gid)
            self._run_as = ["setpriv", f"--reuid={postgres.pw_uid}", f"--regid={postgres.pw_gid}", "--clear-groups"]
        self._init()
        self._process: subprocess.Popen[bytes] | None = None

    def _init(self) -> None:
        password = self.directory / "password"
        self.password = secrets.token_hex(16)
        password.write_text(self.password)
        if self._run_as:
            os.chown(password, self.directory.stat().st_uid, -1)
        self._run(
            "initdb", "--pgdata", self._data, "--username", USER, "--pwfile", password, "--encoding", "UTF8",
            "--locale", "C.UTF-8", "--auth", "scram-sha-256", "--no-sync",
        )  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\nfsync = on\n"
                "synchronous_commit = off\nmax_connections = 200\nshared_buffers = 64MB\nlog_line_prefix = '%m %a: '\n"
            )  # what is answered must be durable even where the database is set to less

    def listen(self, port: int, certificate: bytes, key: bytes) -> None:
        """From its next start on it is reached over TLS on loopback too."""
        for name, data in (("server.crt", certificate), ("server.key", key)):
            (self._data / name).write_bytes(data)
            os.chown(self._data / name, self.directory.stat().st_uid, -1)
            (self._data / name).chmod(0o600)
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = '127.0.0.1'\nport = {port}\nssl = on\n")
        rules = self._data / "pg_hba.conf"
        rules.write_text("hostnossl all all all reject\n" + rules.read_text())
        self.port = port

    def _run(self, program: str, *words: object) -> None:
        command = [*self._run_as, str(BIN / program), *map(str, words)]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*(self._run_as or ["setpriv"]), "--pdeathsig=INT", str(BIN / "postgres"), "-D", str(self._data)],
                cwd=self.directory, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.admin("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends the sessions and stops in good order, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(LIMIT_S)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove all of it."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def server(self, database: str, **changes: object) -> Server:
        """How a journal reaches one of its databases."""
        values = {
            "host": str(self.directory), "port": self.port, "database": database, "user": USER,
            "password": Secret(self.password), "tls": "disable",
        }  # fmt: skip
        return Server(**(values | changes))

    @property
    def socket(self) -> Path:
        """Its UNIX socket."""
        return self.directory / f".s.PGSQL.{self.port}"

    def admin(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the owner, each by itself."""
        db = self.server(database).connect("admin")
        try:
            for statement in statements:
                db.execute(statement)
        finally:
            db.close()

    def rows(self, query: str, *, database: str) -> list[tuple]:
        """What a query finds."""
        db = self.server(database).connect("look")
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def fresh(self) -> str:
        """A new empty database; its name."""
        name = f"journal_{next(self._databases)}"
        self.admin(f"CREATE DATABASE {name}")
        return name

    def lend(self) -> str:
        """A database with a journal as it is when it is new; its name."""
        if self._used:
            database = self._used.pop()
            self.admin(END_OTHERS, WIPE, database=database)
            return database
        database = self.fresh()
        pg_opening.open_writer(self.server(database), "new").close()
        self.admin(KEEP, database=database)
        return database

    def give_back(self, database: str) -> None:
        """The journal of `lend` is not needed any more."""
        self._used.append(database)


def started() -> Cluster:
    """A running server."""
    cluster = Cluster()
    cluster.start()
    return cluster
