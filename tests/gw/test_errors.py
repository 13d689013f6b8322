"""gw.errors: each error has a code from a closed set and a sentence for people."""

from __future__ import annotations

from typing import get_args

import pytest

from gw.errors import ConfigError, GatewayError, ProtocolCode, ProtocolError, StateError, close_code


@pytest.mark.parametrize("code", get_args(ProtocolCode))
def test_a_protocol_error_has_code_and_sentence(code: ProtocolCode) -> None:
    error = ProtocolError(code, "a sentence")
    assert (error.code, error.detail, str(error)) == (code, "a sentence", "a sentence")


def test_a_config_error_names_every_problem() -> None:
    error = ConfigError(["one", "two"])
    assert (error.code, error.problems, str(error)) == ("bad_config", ["one", "two"], "one; two")


def test_every_error_is_a_gateway_error_with_internal_error_as_default_code() -> None:
    assert issubclass(ProtocolError, GatewayError)
    assert issubclass(ConfigError, GatewayError)
    assert StateError("x").code == GatewayError("x").code == "internal_error"


def test_every_violation_has_a_close_code() -> None:
    codes = {code: close_code(code) for code in get_args(ProtocolCode)}
    assert (codes["bad_websocket"], codes["binary_message"], codes["bad_utf8"]) == (1002, 1003, 1007)
    assert (codes["frame_flood"], codes["oversize_message"]) == (1008, 1009)
    assert set(codes.values()) == {1002, 1003, 1007, 1008, 1009}
