"""gw.protocol.hooks.signature: signatures made here, for their body, in time, during a rotation."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.protocol.hooks.signature import HEADER, TOLERANCE_S, sign, verify

BODY = b'{"v":1}'
NOW_S = 1_800_000_000.9


def test_the_form_is_the_documented_one() -> None:
    expected = hmac.new(b"secret", b"1800000000." + BODY, hashlib.sha256).hexdigest()
    assert sign(["secret"], BODY, NOW_S) == f"t=1800000000,v1={expected}"


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40))
def test_round_trip(body: bytes, secret: str) -> None:
    assert verify([secret], sign([secret], body, NOW_S), body, NOW_S) == ""


def test_two_secrets_during_a_rotation() -> None:
    header = sign(["new", "old"], BODY, NOW_S)
    assert header.count("v1=") == 2
    assert [verify([one], header, BODY, NOW_S) for one in ("new", "old", "other")] == ["", "", "forged"]
    assert sign(["new", ""], BODY, NOW_S).count("v1=") == 1
    assert verify(["new", "old"], sign(["old"], BODY, NOW_S), BODY, NOW_S) == ""


@pytest.mark.parametrize(
    ("age_s", "fault"),
    [(0, ""), (TOLERANCE_S, ""), (TOLERANCE_S + 1, "expired"), (-TOLERANCE_S, ""), (-TOLERANCE_S - 1, "expired")],
)
def test_the_time_is_bounded_on_both_sides(age_s: int, fault: str) -> None:
    assert verify(["s"], sign(["s"], BODY, 1_800_000_000), BODY, 1_800_000_000 + age_s) == fault


def test_another_body_time_or_secret_is_forged() -> None:
    header = sign(["s"], BODY, NOW_S)
    assert verify(["s"], header, BODY + b" ", NOW_S) == "forged"
    assert verify(["t"], header, BODY, NOW_S) == "forged"
    assert verify(["s"], header.replace("t=1800000000", "t=1800000001"), BODY, NOW_S) == "forged"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1800000000",
        "v1=00",
        "t=,v1=00",
        "t=-1,v1=00",
        "t=1e9,v1=00",
        "t=1,t=2,v1=00",
        "t=1,v1=\u00e9",
        "t=" + "9" * 13 + ",v1=0",
        "x" * 513,
    ],
)
def test_malformed(header: str) -> None:
    assert verify(["s"], header, BODY, NOW_S) == "malformed"


def test_unknown_parts_are_ignored() -> None:
    assert verify(["s"], "v0=1, " + sign(["s"], BODY, NOW_S) + ", v2=3", BODY, NOW_S) == ""


def test_the_bounds() -> None:
    assert TOLERANCE_S == 300
    header = sign(["s"], BODY, NOW_S)
    longest = f"{header},x={'0' * (512 - len(header) - 3)}"
    assert len(longest) == 512
    assert verify(["s"], longest, BODY, NOW_S) == ""
    assert verify(["s"], longest + "0", BODY, NOW_S) == "malformed"
    assert verify(["s"], header.replace("t=", "t=00"), BODY, NOW_S) == "forged"
    assert verify(["s"], header.replace("t=", "t=000"), BODY, NOW_S) == "malformed"


@given(st.text(max_size=600))
def test_any_text_gives_a_fault(header: str) -> None:
    assert verify(["s"], header, BODY, NOW_S) in ("malformed", "forged", "expired")


def test_an_empty_secret_never_signs_nor_verifies() -> None:
    with pytest.raises(ValueError, match="needs a secret"):
        sign(["", ""], BODY, NOW_S)
    with pytest.raises(ValueError, match="needs a secret"):
        verify([""], "t=1,v1=00", BODY, NOW_S)
    with pytest.raises(ValueError, match="epoch"):
        sign(["s"], BODY, -1)


def test_the_header_is_the_documented_one() -> None:
    assert HEADER == "Submilli-Signature"
