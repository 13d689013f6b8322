"""A private MariaDB server for the tests, in a temporary folder.

Debian's `mariadb-server-core` is installed if it is missing; it contains the server alone, and the server's bootstrap mode
creates the system tables. The server listens on a free loopback port and dies with the process that started it. A commit reaches
the kernel before it is acknowledged, so that a killed server loses nothing; nothing is synced to the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import ipaddress
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gw.bench.gateway_process import free_ports
from tests import debian
from tests.timing import scaled

USER = "submilli"
#: Contains characters with a meaning in a URL, so that a URL built without quoting fails a test.
PASSWORD = "s3cret/@:%"
_SHARE = Path("/usr/share/mysql")
_START_S = 30.0
_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1
_BOOTSTRAP_FILES = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
)
_COMMON = (
    "--no-defaults",
    f"--lc-messages-dir={_SHARE}",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-use-native-aio=0",
    "--performance-schema=OFF",
    "--log-warnings=0",
    *("--innodb-flush-method=nosync", "--debug-no-sync"),  # a migration has a hundred statements, each with several syncs
)
_SERVE = ("--bind-address=127.0.0.1", "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def make_certificate(
    certificate: Path, key: Path, names: Sequence[str] = ("localhost",), addresses: Sequence[str] = ("127.0.0.1",)
) -> None:
    """Write a self-signed certificate, valid for a day, and its key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    known = [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


class MariaDB:
    """One server with any number of databases. `start` and `kill` may alternate; the data stays until `remove`."""

    def __init__(self) -> None:
        self._server = debian.installed("mariadbd", "mariadb-server-core")
        self._folder = Path(tempfile.mkdtemp(prefix="submilli-mariadb-"))
        self._data = self._folder / "data"
        self._data.mkdir()
        self._log = self._folder / "log"
        self._socket = self._folder / "s"
        self._own = [f"--tmpdir={self._folder}"]  # a server that starts deletes the temporary tables of all others in /tmp
        if os.geteuid() == 0:
            self._own.append("--user=root")  # as root, mariadbd refuses to run without this option
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self.port = free_ports(1)[0]
        self.ca = self._folder / "ca.pem"  # for clients that verify the server; valid for localhost and 127.0.0.1
        self._key = self._folder / "key.pem"
        make_certificate(self.ca, self._key)
        self._bootstrap()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        if self._process is not None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._server,
                    *_COMMON,
                    *_SERVE,
                    *self._own,
                    f"--datadir={self._data}",
                    f"--socket={self._socket}",
                    f"--port={self.port}",
                    f"--ssl-ca={self.ca}",
                    f"--ssl-cert={self.ca}",
                    f"--ssl-key={self._key}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline_s = time.monotonic() + scaled(_START_S)
        while True:
            try:
                self._root().close()
                return
            except pymysql.err.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    pytest.fail(f"MariaDB did not start: {self._log.read_text(errors='replace')[-2000:]}", pytrace=False)
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(scaled(_STOP_S))
            self._process = None

    def move(self) -> None:
        """Use another port from the next start on, as a replacement server would."""
        assert self._process is None
        self.port = free_ports(1)[0]

    def freeze(self) -> None:
        """Stop the server's process; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the server after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def revive(self) -> None:
        """Bring the server back to a running state after `freeze` or `kill`."""
        if self._process is not None:
            self.thaw()
        self.start()

    def fresh(self) -> str:
        """Create an empty database. Returns its URL, without the password."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET latin1")  # not the character set that the store requires
        self.execute(f"GRANT ALL ON {name}.* TO {USER}@'127.0.0.1'")
        return f"mysql+pymysql://{USER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> tuple[tuple[object, ...], ...]:
        """Run one statement as root."""
        with contextlib.closing(self._root()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def remove(self) -> None:
        """Stop the server and remove everything it wrote."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _root(self) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            unix_socket=str(self._socket), user="root", ssl_disabled=True, connect_timeout=5, read_timeout=scaled(_START_S)
        )

    def _bootstrap(self) -> None:
        # Bootstrap mode reads one statement per line.
        sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
        sql += "".join((_SHARE / name).read_text() for name in _BOOTSTRAP_FILES)
        quoted = PASSWORD.replace("'", "''")
        sql += f"\nFLUSH PRIVILEGES;\nCREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{quoted}';\n"
        done = subprocess.run(
            [self._server, *_COMMON, *self._own, "--bootstrap", f"--datadir={self._data}", "--max-allowed-packet=8M"],
            input=sql.encode(),
            capture_output=True,
            timeout=scaled(_START_S),
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"MariaDB could not be set up: {done.stderr.decode(errors='replace')[-2000:]}", pytrace=False)
