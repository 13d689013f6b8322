"""Encryption of MySQL connections: one TLS context for all of them.

A context costs about 20 ms to build, and PyMySQL builds one for every connection unless it is given one.
"""

from __future__ import annotations

import ssl

from gw.config.rules import is_loopback
from gw.config.store_url import MysqlUrl


class Tls:
    """The TLS options of a URL. The certificates are read by the first call of `context`.

    `required`: refuse a server without TLS. Otherwise TLS is used if the server offers it, unverified: that stops a listener on
    the network, but no impostor. `ssl_ca` stops both.
    """

    def __init__(self, url: MysqlUrl) -> None:
        options, flags = url.options, url.flags
        self.required = _is_asked_for(url)
        self._verify = flags.get("ssl_verify", self.required)
        self._check_hostname = flags.get("ssl_check_hostname", True)
        self._ca, self._cert, self._key = (options.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key"))
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context of all connections. Raises OSError for an unreadable certificate."""
        if self._context is None:
            context = ssl.create_default_context(cafile=self._ca)
            # Certificates that MySQL generates lack extensions that Python 3.13 requires by default.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.check_hostname = self._verify and self._check_hostname
            context.verify_mode = ssl.CERT_REQUIRED if self._verify else ssl.CERT_NONE
            if self._cert is not None:
                context.load_cert_chain(self._cert, self._key)
            self._context = context
        return self._context


def tls_of(url: MysqlUrl) -> Tls | None:
    """Return how connections to a database are encrypted; None for plain ones: by request, or within one machine."""
    if url.flags.get("ssl_disabled", False) or not url.flags.get("ssl", True):
        return None
    return Tls(url) if _is_asked_for(url) or not _is_local(url) else None


def _is_asked_for(url: MysqlUrl) -> bool:
    return any(name.startswith("ssl") and name != "ssl_disabled" for name in (*url.options, *url.flags))


def _is_local(url: MysqlUrl) -> bool:
    return "unix_socket" in url.options or is_loopback(url.host)
