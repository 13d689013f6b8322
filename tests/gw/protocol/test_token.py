"""gw.protocol.token: tokens made here, for their call, in time."""

from __future__ import annotations

import re

import pytest

from gw.protocol import token

KEY = b"a key of the gateway's own"
CALL = "CA" + "1" * 32
NONCE = bytes(range(16))
MADE = token.make(KEY, CALL, 1_800_000_000, NONCE)


def code_of(text: str, *, key: bytes = KEY, call_sid: str = CALL, now_s: float = 1_800_000_001.5) -> str:
    with pytest.raises(token.TokenError) as caught:
        token.check(key, text, call_sid, now_s)
    return caught.value.code


@pytest.mark.parametrize("nonce", [bytes(8), NONCE, bytes(17), bytes(18), b"\xff" * 32])
@pytest.mark.parametrize("call_sid", [CALL, "CA12", ""])
def test_round_trip(nonce: bytes, call_sid: str) -> None:
    made = token.make(KEY, call_sid, 1_800_000_000, nonce)
    assert token.check(KEY, made, call_sid, 1_800_000_030) == token.StreamToken(nonce, 1_800_000_000)


def test_a_token_fits_a_parameter_and_needs_no_escape() -> None:
    longest = token.make(KEY, "C" * 64, 10**18, bytes(32))
    assert len(longest) <= 300 < 500 - len("token")  # Twilio's limit on a parameter
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", longest)


@pytest.mark.parametrize("age_s", [-5, 0, 60])
def test_in_time(age_s: int) -> None:
    assert token.check(KEY, MADE, CALL, 1_800_000_000 + age_s).nonce == NONCE


@pytest.mark.parametrize("age_s", [-3600, -5.1, 60.1, 1e9])
def test_out_of_time(age_s: float) -> None:
    assert code_of(MADE, now_s=1_800_000_000 + age_s) == "token_expired"


def test_the_lifetime_is_a_parameter() -> None:
    assert token.check(KEY, MADE, CALL, 1_800_000_100, ttl_s=100).issued_at_s == 1_800_000_000
    with pytest.raises(token.TokenError):
        token.check(KEY, MADE, CALL, 1_800_000_011, ttl_s=10)


def test_another_key_or_call() -> None:
    assert code_of(MADE, key=b"other") == "token_forged"
    assert code_of(MADE, call_sid="CA2") == "token_forged"


def test_no_single_character_may_change() -> None:
    for i, character in enumerate(MADE):
        other = "A" if character != "A" else "B"
        assert code_of(MADE[:i] + other + MADE[i + 1 :]) == "token_forged"


def test_parts_cannot_be_shifted_into_the_call_sid() -> None:
    nonce, issued, mac = MADE.split(".")
    assert code_of(f"{nonce}.{mac}", call_sid=f"{issued}.{CALL}") == "token_forged"
    body, _, mac = token.make(KEY, "CA1.CA2", 1_800_000_000, NONCE).rpartition(".")
    assert code_of(f"{body}.CA1.{mac}", call_sid="CA2") == "token_forged"


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a.b.c", MADE + "=", MADE + ".", "." + MADE, "é.1.x", "\ud800.1.x", "x" * 9999]
)
def test_other_texts_are_forged(text: str) -> None:
    assert code_of(text) == "token_forged"


@pytest.mark.parametrize(("key", "nonce", "issued"), [(b"", NONCE, 0), (KEY, bytes(7), 0), (KEY, bytes(33), 0), (KEY, NONCE, -1)])
def test_invalid_parts_make_no_token(key: bytes, nonce: bytes, issued: int) -> None:
    with pytest.raises(ValueError, match=r"token|nonce"):
        token.make(key, CALL, issued, nonce)


def test_a_token_of_the_epoch() -> None:
    assert token.check(KEY, token.make(KEY, CALL, 0, NONCE), CALL, 0.0) == token.StreamToken(NONCE, 0)


def test_a_longer_text_is_refused_before_its_mac_is_computed() -> None:
    issued = "1" * (300 - len(MADE) + 10)
    body = f"{MADE.partition('.')[0]}.{issued}"
    for text, code in (
        (f"{body}.{token._mac(KEY, body, CALL, {})}", "token_expired"),
        (f"{body}1.{token._mac(KEY, body + '1', CALL, {})}", "token_forged"),
    ):
        assert len(text) == 300 + (code == "token_forged")
        assert code_of(text) == code


def test_the_errors_name_the_cause() -> None:
    for text, now_s, words in (
        ("x", 0.0, "malformed"),
        (MADE[:-1], 0.0, "another key"),
        (MADE, 1_800_000_090.0, "90 s old, valid for 60 s"),
    ):
        with pytest.raises(token.TokenError, match=words):
            token.check(KEY, text, CALL, now_s)


def test_nothing_is_checked_with_an_empty_key() -> None:
    with pytest.raises(ValueError, match="key"):
        token.check(b"", MADE, CALL, 0)


BOUND = {"agent": "sales", "resume": "2", "began": "1800000000.000"}


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": "other"},
        {"agent": ""},
        {"resume": "1"},
        {"resume": ""},
        {"began": "1.000"},
        {"agent": "sales6:2", "resume": ""},
        {"agent": "2", "resume": "sales"},
    ],
)
def test_a_changed_parameter_is_forged(changed: dict[str, str]) -> None:
    made = token.make(KEY, CALL, 1_800_000_000, NONCE, BOUND)
    assert token.check(KEY, made, CALL, 1_800_000_001, parameters={**BOUND, "caller": "+1", "token": made}).nonce == NONCE
    with pytest.raises(token.TokenError) as caught:
        token.check(KEY, made, CALL, 1_800_000_001, parameters={**BOUND, **changed})
    assert caught.value.code == "token_forged"


def test_a_parameter_that_is_missing_or_blank_is_the_same() -> None:
    made = token.make(KEY, CALL, 1_800_000_000, NONCE, {"agent": "sales"})
    assert token.check(KEY, made, CALL, 1_800_000_001, parameters={"agent": "sales", "resume": ""}).nonce == NONCE


def test_each_ledger_has_its_own_key() -> None:
    one, other = (token.ledger_key(KEY, bytes(15) + bytes([n])) for n in range(2))
    assert len({one, other, KEY}) == 3
    assert code_of(token.make(one, CALL, 1_800_000_000, NONCE), key=other) == "token_forged"


def test_a_route_is_bound_where_there_is_one() -> None:
    """A worker of an earlier version has no routes, and both accept each other's tokens without one."""
    without = token.make(KEY, CALL, 1_800_000_000, NONCE, BOUND)
    assert token.make(KEY, CALL, 1_800_000_000, NONCE, {**BOUND, "route": ""}) == without
    made = token.make(KEY, CALL, 1_800_000_000, NONCE, {**BOUND, "route": "abc"})
    assert token.check(KEY, made, CALL, 1_800_000_001, parameters={**BOUND, "route": "abc"}).nonce == NONCE
    for changed in (BOUND, {**BOUND, "route": "xyz"}):
        with pytest.raises(token.TokenError):
            token.check(KEY, made, CALL, 1_800_000_001, parameters=changed)
    with pytest.raises(token.TokenError):
        token.check(KEY, without, CALL, 1_800_000_001, parameters={**BOUND, "route": "abc"})
