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


def webhook_valid(
    token: str, signed: str | None, public: str, path: str, form: list[tuple[str, str]], settings: str | None = None
) -> bool:
    """Check a webhook's signature with one auth token."""
    given = None if signed is None else signature.Signature(signed, settings)
    return signature.webhook_valid(signature.SigningSecrets((token,)), given, public, path, signature.form_text(form))


def stream_valid(token: str, signed: str | None, public: str, path: str) -> bool:
    """Check an upgrade's signature with one auth token."""
    given = None if signed is None else signature.Signature(signed)
    return signature.stream_valid(signature.SigningSecrets((token,)), given, public, path)


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
        ours = webhook_valid(TOKEN, signed, public, path, form)
        assert ours == validator.validate(url, sdk_form(form), signed)
        accepted += ours
    assert accepted == 2


def test_a_webhook_with_any_difference_is_refused() -> None:
    form = FORMS[1]
    signed = signature.sign(TOKEN, PUBLIC + "/p?x=1", form)
    assert webhook_valid(TOKEN, signed, PUBLIC, "/p?x=1", form)
    assert not webhook_valid(TOKEN, None, PUBLIC, "/p?x=1", form)
    assert not webhook_valid(TOKEN, "", PUBLIC, "/p?x=1", form)
    assert not webhook_valid(TOKEN, "é\ud800", PUBLIC, "/p?x=1", form)
    assert not webhook_valid(TOKEN, signed[:-1], PUBLIC, "/p?x=1", form)
    assert not webhook_valid("other", signed, PUBLIC, "/p?x=1", form)
    assert not webhook_valid(TOKEN, signed, PUBLIC, "/p?x=2", form)
    assert not webhook_valid(TOKEN, signed, PUBLIC, "/p", form)
    assert not webhook_valid(TOKEN, signed, PUBLIC, "/p?x=1", [*form, ("More", "")])
    assert not webhook_valid(TOKEN, signed, "https://elsewhere.example.com", "/p?x=1", form)
    assert not webhook_valid(TOKEN, signed, PUBLIC, "/p\udcff", form)


def test_an_empty_key_is_never_valid() -> None:
    assert not webhook_valid("", signature.sign("", PUBLIC + "/p"), PUBLIC, "/p", [])
    assert not stream_valid("", signature.sign("", "wss://voice.example.com/m"), PUBLIC, "/m")


@pytest.mark.parametrize("scheme", ["wss", "https"])
@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/media", "/media/"])
def test_a_stream_in_every_spelling(scheme: str, port: str, slash: str, path: str) -> None:
    signed = signature.sign(TOKEN, f"{scheme}://voice.example.com{port}/media{slash}")
    assert stream_valid(TOKEN, signed, PUBLIC, path)
    assert stream_valid(TOKEN, signed, PUBLIC + ":443/", path)
    assert not stream_valid(TOKEN, signed, "https://voice.example.org", path)
    assert not stream_valid("other", signed, PUBLIC, path)


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
    assert not stream_valid(TOKEN, signature.sign(TOKEN, url), PUBLIC, "/media")


def test_a_stream_without_a_signature() -> None:
    assert not stream_valid(TOKEN, None, PUBLIC, "/media")


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
    assert stream_valid(TOKEN, signature.sign(TOKEN, url), public, "/media")


@pytest.mark.parametrize("url", ["wss://h/media", "https://h/media", "ws://h:443/media", "ws://h:8080/media"])
def test_a_plain_public_url_allows_no_other_scheme_or_port(url: str) -> None:
    assert not stream_valid(TOKEN, signature.sign(TOKEN, url), "http://h", "/media")


def test_an_invalid_authority_is_refused_without_an_error() -> None:
    assert not stream_valid(TOKEN, "x", "https://a\nb", "/media")


def test_any_form_agrees_with_the_sdk() -> None:
    dice = random.Random(7)
    for _ in range(200):
        query = "&".join(f"{dice.choice('abAB')}={dice.choice(['', 'x', 'y%20z', '%C3%A9'])}" for _ in range(dice.randrange(8)))
        fields = parse_qs(query, keep_blank_values=True)
        form = [(name, value) for name, values in fields.items() for value in values]
        dice.shuffle(form)
        signed = RequestValidator(TOKEN).compute_signature(PUBLIC + "/p", Form(fields))
        assert webhook_valid(TOKEN, signed, PUBLIC, "/p", form)


# -- other secrets than the one auth token ---------------------------------------------------------------------------------

SHARED = "a secret of the SharedKey"
SETTINGS = "key=webhooks_sharedkey_01,algorithm=HMAC_SHA256"
SECRETS = signature.SigningSecrets((TOKEN, "the old token"), SHARED)
PATH = "/twilio/status"


def by_the_sdk(secret: str, form: list[tuple[str, str]], algorithm: str | None = None) -> str:
    return RequestValidator(secret).compute_signature(PUBLIC + PATH, sdk_form(form), algorithm)


def valid(signed: str, form: list[tuple[str, str]], settings: str | None = None, secrets: object = SECRETS) -> bool:
    assert isinstance(secrets, signature.SigningSecrets)
    given = signature.Signature(signed, settings)
    return signature.webhook_valid(secrets, given, PUBLIC, PATH, signature.form_text(form))


@pytest.mark.parametrize("form", FORMS)
def test_both_auth_tokens_are_accepted_during_a_rotation(form: list[tuple[str, str]]) -> None:
    assert valid(by_the_sdk(TOKEN, form), form)
    assert valid(by_the_sdk("the old token", form), form)
    assert not valid(by_the_sdk(SHARED, form), form), "a SharedKey is announced"
    old = signature.Signature(signature.sign("the old token", "wss://voice.example.com/media"))
    assert signature.stream_valid(SECRETS, old, PUBLIC, "/media")
    assert not signature.stream_valid(signature.SigningSecrets((TOKEN, "")), old, PUBLIC, "/media")


@pytest.mark.parametrize("form", FORMS)
def test_a_shared_key_signs_with_sha256(form: list[tuple[str, str]]) -> None:
    signed = by_the_sdk(SHARED, form, "HMAC_SHA256")
    assert signed == signature.sign(SHARED, PUBLIC + PATH, form, "HMAC_SHA256")
    for settings in (SETTINGS, " algorithm = hmac_sha256 , key=x", "algorithm=HMAC_SHA256"):
        assert valid(signed, form, settings)
    assert valid(by_the_sdk(SHARED, form), form, "key=x"), "no algorithm is SHA-1, as in the SDK"
    for settings in (None, "", "key=x", "algorithm=HMAC_MD5", "algorithm=HMAC_SHA1", "HMAC_SHA256"):
        assert not valid(signed, form, settings)


def test_announced_settings_never_accept_an_auth_token_or_an_empty_key() -> None:
    form = FORMS[1]
    assert not valid(by_the_sdk(TOKEN, form, "HMAC_SHA256"), form, SETTINGS)
    assert not valid(by_the_sdk(TOKEN, form), form, "key=x")
    nothing = signature.SigningSecrets((TOKEN, ""))
    assert not valid(by_the_sdk("", form, "HMAC_SHA256"), form, SETTINGS, nothing)
    assert not valid(by_the_sdk("", form), form, None, nothing)


def test_a_request_without_a_signature_has_none() -> None:
    assert signature.signature_of({}) is None
    assert signature.signature_of({"HTTP_X_TWILIO_SIGNATURE": ""}) is None
    header = {"HTTP_X_TWILIO_SIGNATURE": "x", "HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS": SETTINGS}
    assert signature.signature_of(header) == ("x", SETTINGS)
