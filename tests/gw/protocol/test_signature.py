"""gw.protocol.signature, compared with the twilio package's validator."""

from __future__ import annotations

import random
from urllib.parse import parse_qs

import pytest
from twilio.request_validator import RequestValidator

from gw.protocol import signature

TOKEN = "12345"
PUBLIC = "https://voice.example.com"
FORMS: list[list[tuple[str, str]]] = [
    [],
    [("CallSid", "CA1"), ("From", "+14158675309"), ("Digits", "1234")],
    [("Blank", ""), ("A", "b")],
    [("Twice", "b"), ("Twice", "a"), ("Twice", "b"), ("Other", "z")],
    [("é", "ü & = ? /"), ("a", "B"), ("A", "b")],
]


class Form(dict[str, list[str]]):
    """A form as web frameworks pass it to the SDK: every value of a name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def sdk_form(form: list[tuple[str, str]]) -> Form:
    result = Form()
    for name, value in form:
        result.setdefault(name, []).append(value)
    return result


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("url", [PUBLIC + "/p", "http://h:8080/p/?a=b%20c&d=", "wss://h/m"])
def test_sign_equals_the_sdk(url: str, form: list[tuple[str, str]]) -> None:
    assert signature.sign(TOKEN, url, form) == RequestValidator(TOKEN).compute_signature(url, sdk_form(form))


def test_the_documented_example() -> None:
    # Twilio docs, "Validating requests are coming from Twilio": the worked example.
    form = [
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675309"),
        ("Digits", "1234"),
        ("From", "+14158675309"),
        ("To", "+18005551212"),
    ]
    assert signature.sign(TOKEN, "https://mycompany.com/myapp.php?foo=1&bar=2", form) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "public", [PUBLIC, PUBLIC + "/", PUBLIC + "/pre", PUBLIC + ":443", PUBLIC + ":8443", "http://h", "http://h:8080"]
)
@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/voice?x=1&y=", "/"])
def test_webhooks_agree_with_the_sdk(public: str, path: str, form: list[tuple[str, str]]) -> None:
    validator, url = RequestValidator(TOKEN), public.rstrip("/") + path
    scheme, _, rest = url.partition("://")
    authority, _, tail = rest.partition("/")
    host = authority.split(":")[0]
    accepted = 0
    for port in ("", ":443", ":80", ":8443", ":8080"):
        signed = signature.sign(TOKEN, f"{scheme}://{host}{port}/{tail}", form)
        ours = signature.webhook_valid(TOKEN, signed, public, path, form)
        assert ours == validator.validate(url, sdk_form(form), signed)
        accepted += ours
    assert accepted == 2


def test_a_webhook_with_any_difference_is_refused() -> None:
    form = FORMS[1]
    signed = signature.sign(TOKEN, PUBLIC + "/p?x=1", form)
    assert signature.webhook_valid(TOKEN, signed, PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, None, PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, "", PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, "é\ud800", PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, signed[:-1], PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid("other", signed, PUBLIC, "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, signed, PUBLIC, "/p?x=2", form)
    assert not signature.webhook_valid(TOKEN, signed, PUBLIC, "/p", form)
    assert not signature.webhook_valid(TOKEN, signed, PUBLIC, "/p?x=1", [*form, ("More", "")])
    assert not signature.webhook_valid(TOKEN, signed, "https://elsewhere.example.com", "/p?x=1", form)
    assert not signature.webhook_valid(TOKEN, signed, PUBLIC, "/p\udcff", form)


def test_an_empty_key_is_never_valid() -> None:
    assert not signature.webhook_valid("", signature.sign("", PUBLIC + "/p"), PUBLIC, "/p", [])
    assert not signature.stream_valid("", signature.sign("", "wss://voice.example.com/m"), PUBLIC, "/m")


@pytest.mark.parametrize("scheme", ["wss", "https"])
@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/media", "/media/"])
def test_a_stream_in_every_spelling(scheme: str, port: str, slash: str, path: str) -> None:
    signed = signature.sign(TOKEN, f"{scheme}://voice.example.com{port}/media{slash}")
    assert signature.stream_valid(TOKEN, signed, PUBLIC, path)
    assert signature.stream_valid(TOKEN, signed, PUBLIC + ":443/", path)
    assert not signature.stream_valid(TOKEN, signed, "https://voice.example.org", path)
    assert not signature.stream_valid("other", signed, PUBLIC, path)


@pytest.mark.parametrize(
    "url",
    [
        "wss://voice.example.com/medium",
        "wss://voice.example.com/media//",
        "ws://voice.example.com/media",
        "http://voice.example.com/media",
        "wss://voice.example.com:80/media",
        "wss://voice.example.com:8443/media",
        "wss://voice.example.com/media?x=1",
    ],
)
def test_a_stream_elsewhere(url: str) -> None:
    assert not signature.stream_valid(TOKEN, signature.sign(TOKEN, url), PUBLIC, "/media")


def test_a_stream_without_a_signature() -> None:
    assert not signature.stream_valid(TOKEN, None, PUBLIC, "/media")


@pytest.mark.parametrize(
    ("public", "url"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/media"),
        ("http://[::1]:8080", "ws://[::1]:8080/media"),
        ("http://[::1]", "ws://[::1]:80/media"),
        ("https://h/pre/", "wss://h/pre/media"),
        ("https://user:pass@h:8443", "wss://user:pass@h:8443/media"),
        ("http://h", "http://h/media"),
        ("http://h", "ws://h:80/media/"),
        ("https://h:8443", "wss://h/media"),
        ("wss://h", "https://h:443/media"),
        ("ws://h", "http://h:80/media"),
    ],
)
def test_other_public_urls(public: str, url: str) -> None:
    assert signature.stream_valid(TOKEN, signature.sign(TOKEN, url), public, "/media")


@pytest.mark.parametrize("url", ["wss://h/media", "https://h/media", "ws://h:443/media", "ws://h:8080/media"])
def test_a_plain_public_url_allows_no_other_scheme_or_port(url: str) -> None:
    assert not signature.stream_valid(TOKEN, signature.sign(TOKEN, url), "http://h", "/media")


def test_an_invalid_authority_is_refused_without_an_error() -> None:
    assert not signature.stream_valid(TOKEN, "x", "https://a\nb", "/media")


def test_any_form_agrees_with_the_sdk() -> None:
    dice = random.Random(7)
    for _ in range(200):
        query = "&".join(f"{dice.choice('abAB')}={dice.choice(['', 'x', 'y%20z', '%C3%A9'])}" for _ in range(dice.randrange(8)))
        fields = parse_qs(query, keep_blank_values=True)
        form = [(name, value) for name, values in fields.items() for value in values]
        dice.shuffle(form)
        signed = RequestValidator(TOKEN).compute_signature(PUBLIC + "/p", Form(fields))
        assert signature.webhook_valid(TOKEN, signed, PUBLIC, "/p", form)
