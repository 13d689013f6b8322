"""An account of the REST twin, with the real twilio package as its client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from gw.twin.twilio.rest.server import RestTwin
from gw.twin.twilio.webhooks import WebhookSender
from tests.gw.twin.tiny_gateway import TinyGateway

ACCOUNT = "AC" + "1" * 32
CALL = "CA" + "2" * 32


@dataclass
class Phone:
    """The part of a call that REST uses."""

    call_sid: str = CALL
    account_sid: str = ACCOUNT
    status: str = "in-progress"
    answered_at: float | None = 1_700_000_000.0
    ended_at: float | None = None
    ended_by: str = ""

    def hang_up(self, by: str) -> None:
        self.ended_by = by


class Rewriting(TwilioHttpClient):
    """The package's own client, with another base URL."""

    def __init__(self, base: str, timeout_s: float = 5.0) -> None:
        super().__init__(timeout=timeout_s)
        self._base = urlsplit(base)

    def request(self, method: str, uri: str, *arguments: object, **named: object) -> object:  # type: ignore[override]
        uri = urlunsplit(urlsplit(uri)._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        return super().request(method, uri, *arguments, **named)  # type: ignore[arg-type]


@dataclass
class Account:
    rest: RestTwin
    gateway: TinyGateway
    phone: Phone

    def client(self, token: str = "secret", timeout_s: float = 5.0) -> Client:
        return Client(ACCOUNT, token, http_client=Rewriting(self.rest.url, timeout_s))

    @property
    def callback(self) -> str:
        return f"{self.gateway.url}/twilio/recording"


@contextmanager
def open_account() -> Iterator[Account]:
    with TinyGateway() as gateway:
        phone = Phone()
        rest = RestTwin(ACCOUNT, "secret", {CALL: phone}, WebhookSender(gateway.url, gateway.url, "secret")).start()
        try:
            yield Account(rest, gateway, phone)
        finally:
            rest.stop()
