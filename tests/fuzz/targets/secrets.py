"""Laws of tokens, signatures and signed forms: nothing forged is valid, what is made here is, and Twilio's own library agrees."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode

from twilio.request_validator import RequestValidator

from gw.protocol import signature as signatures
from gw.protocol import token as tokens
from gw.protocol import webhook_form

_KEY: Final = b"a key of the fuzzer"
_AUTH_TOKEN: Final = "an auth token of the fuzzer"
_SECRETS: Final = signatures.SigningSecrets(("another token", _AUTH_TOKEN))
_NOW_S: Final = 1_700_000_000


def _parts(data: bytes, count: int) -> list[bytes]:
    """Split the data at its first NUL bytes into `count` parts."""
    parts = data.split(b"\0", count - 1)
    return parts + [b""] * (count - len(parts))


def token(data: bytes) -> None:
    """Check the data as a forged token, and a real token with any character changed."""
    text, call = (part.decode("latin-1") for part in _parts(data, 2))
    try:
        tokens.check(_KEY, text, call, _NOW_S)
    except tokens.TokenError as error:
        assert error.code == "token_forged", error
    else:
        raise AssertionError("a forged token is valid")
    made = tokens.make(_KEY, call, _NOW_S, (data + bytes(8))[:32])
    assert tokens.check(_KEY, made, call, _NOW_S).issued_at_s == _NOW_S
    at = sum(data) % len(made)
    changed = made[:at] + ("x" if made[at] != "x" else "y") + made[at + 1 :]
    for other_token, other_call in ((changed, call), (made, call + "x"), (made + text, call) if text else (changed, call)):
        try:
            tokens.check(_KEY, other_token, other_call, _NOW_S)
        except tokens.TokenError:
            continue
        raise AssertionError("a changed token is valid")


def signature(data: bytes) -> None:
    """Take the data as a signature, a path and a form."""
    given, path, form_text = (part.decode("latin-1") for part in _parts(data, 3))
    form = parse_qsl(form_text, keep_blank_values=True)
    text, forged = signatures.form_text(form), signatures.Signature(given)
    for url in ("https://example.com", "https://example.com:8443/base/"):
        assert not signatures.webhook_valid(_SECRETS, forged, url, "/" + path, text)
        assert not signatures.stream_valid(_SECRETS, forged, url, "/" + path)
        whole = url.rstrip("/") + "/" + path
        made = signatures.sign(_AUTH_TOKEN, whole, form)
        if len({name for name, _ in form}) == len(form):  # Twilio's library takes a dict
            assert made == RequestValidator(_AUTH_TOKEN).compute_signature(whole, dict(form))
        true = signatures.Signature(made)
        assert signatures.webhook_valid(_SECRETS, true, url, "/" + path, text)
        added = ("Added" * 20, "x")  # a repeated pair would count once
        assert not signatures.webhook_valid(_SECRETS, true, url, "/" + path, signatures.form_text([*form, added]))


def form(data: bytes) -> None:
    """Take the data as a webhook's body: fields as the standard library reads them, or one error."""
    try:
        fields = webhook_form.parse_form(data)
    except ValueError:
        return
    assert len(fields) <= webhook_form.MAX_FIELDS
    assert fields == parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    again = urlencode(fields).encode()
    assert webhook_form.parse_form(again) == fields
