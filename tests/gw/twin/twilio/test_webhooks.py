"""gw.twin.twilio.webhooks: signatures, addresses, and recorded answers."""

from __future__ import annotations

import pytest
from gevent import socket
from gevent.server import StreamServer

from gw.twin.twilio.webhooks import WebhookSender, sign
from tests.gw.twin.tiny_gateway import TinyGateway


def test_the_signature_of_twilios_documentation() -> None:
    # https://www.twilio.com/docs/usage/security, "Validating requests"
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    assert sign("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", fields) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_the_public_host_is_reached_at_the_gateways_address() -> None:
    webhooks = WebhookSender("http://127.0.0.1:8080", "https://voice.example.com/", "secret")
    assert webhooks.absolute("/twilio/voice") == "https://voice.example.com/twilio/voice"
    assert webhooks.absolute("action", "https://voice.example.com/twilio/voice") == "https://voice.example.com/twilio/action"
    assert webhooks.locate("wss://voice.example.com/media") == ("127.0.0.1", 8080, False)
    assert webhooks.locate("https://elsewhere.example.com/x") == ("elsewhere.example.com", 443, True)
    assert "X-Twilio-Signature" in webhooks.headers("https://voice.example.com/")
    assert "X-Twilio-Signature" not in WebhookSender("http://127.0.0.1:1", "http://127.0.0.1:1", "").headers(
        "http://127.0.0.1:1/"
    )


def test_answers_and_failures_are_recorded() -> None:
    with TinyGateway(twiml={"/twilio/voice": "<Response/>"}) as gateway:
        webhooks = WebhookSender(gateway.url, gateway.url, "")
        good = webhooks.post(f"{gateway.url}/twilio/voice", {"CallSid": "CA1"})
        assert (good.is_good, good.body, gateway.paths()) == (True, "<Response/>", ["/twilio/voice"])
        failed = webhooks.post("http://127.0.0.1:9/twilio/voice#rc=0", {})
        assert (failed.status, failed.is_good) == (0, False)
        assert "ConnectionRefusedError" in failed.body
        assert webhooks.posted_to("/twilio/voice") == [good, failed]


@pytest.mark.parametrize(
    ("fragment", "statuses"),
    [
        ("", [0]),
        ("#rc=2&rp=ct,5xx", [0]),
        ("#rc=1&rp=rt", [0, 503]),
        ("#rc=2&rp=rt,4xx", [0, 503]),
        ("#rc=2&rp=all", [0, 503, 204]),
        ("#rc=9&rp=all", [0, 503, 204]),
    ],
)
def test_a_failed_request_is_repeated_as_its_url_asks(fragment: str, statuses: list[int]) -> None:
    answers = [b"", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 Good\r\n\r\n"]
    heads: list[bytes] = []

    def serve(sock: socket.socket, _address: object) -> None:
        heads.append(sock.recv(65_536))
        sock.sendall(answers[len(heads) - 1])
        sock.close()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    url = f"http://127.0.0.1:{server.server_port}"
    webhooks = WebhookSender(url, url, "secret")
    last = webhooks.post(f"{url}/twilio/action?a=1{fragment}", {"CallSid": "CA1"})
    server.stop()
    assert [posted.status for posted in webhooks.posted_to("/twilio/action")] == statuses
    assert last is webhooks.posts[-1]
    signed = sign("secret", f"{url}/twilio/action?a=1", {"CallSid": "CA1"}).encode()
    assert all(head.startswith(b"POST /twilio/action?a=1 HTTP/1.1\r\n") and signed in head for head in heads)


def test_a_failed_connect_is_repeated_once_by_default() -> None:
    webhooks = WebhookSender("http://127.0.0.1:9", "http://127.0.0.1:9", "")
    assert webhooks.post("http://127.0.0.1:9/twilio/voice", {}).status == 0
    assert len(webhooks.posts) == 2
