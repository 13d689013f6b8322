"""gw.twin.twilio.webhooks: signatures, addresses, and recorded answers."""

from __future__ import annotations

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
        failed = webhooks.post("http://127.0.0.1:9/twilio/voice", {})
        assert (failed.status, failed.is_good) == (0, False)
        assert "ConnectionRefusedError" in failed.body
        assert webhooks.posted_to("/twilio/voice") == [good, failed]
