"""Digits that the agent asks the caller to type: what the agent asked for, what was typed so far, and the tool's output.

Sensitive digits are masked in the output, and named by a reference: `{"digits":"****5678","ref":"d1"}`. Pure.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gw.errors import ProtocolError
from gw.protocol.hooks.tool_call import read_arguments

#: Most digits of one collection.
MAX_DIGITS: Final = 64
#: Masked digits of which the last ones are shown, and how many of them.
SHOWN_FROM: Final = 8
SHOWN: Final = 4
#: References of one stream in the numbers of references: those of a later stream of the same call continue behind them.
REFS_PER_STREAM: Final = 1000

#: Why digits are not what the agent asked for. timeout: too few when the caller paused. too_few: when the terminator came.
#: too_early: some were typed before the recording was paused, and are dropped.
Shortfall = Literal["", "timeout", "too_few", "too_early"]


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of the tool."""

    min: Annotated[int, Meta(ge=1, le=MAX_DIGITS)] = 1
    max: Annotated[int, Meta(ge=1, le=MAX_DIGITS)] = 20
    finish_on: Literal["#", "*", ""] = "#"
    timeout_s: Annotated[float, Meta(ge=1.0, le=60.0)] = 10.0
    sensitive: bool = False


class Asked(NamedTuple):
    """Digits that the agent asks for. `pause_ms`: the caller's pause that ends the collection."""

    least: int = 1
    most: int = 20
    finish_on: str = "#"
    pause_ms: int = 10_000
    is_sensitive: bool = False


class Collection(NamedTuple):
    """One collection. `is_open`: keys count; a sensitive one opens once the recording is paused."""

    call_id: str
    asked: Asked
    digits: str = ""
    is_open: bool = True
    is_partial: bool = False  # keys were dropped
    is_taken: bool = False  # complete; control keeps the digits

    @property
    def is_full(self) -> bool:
        """True with as many digits as the agent asked for."""
        return len(self.digits) >= self.asked.most

    def shortfall(self, why: Literal["timeout", "too_few"]) -> Shortfall:
        """Return what is wrong with the digits at their end."""
        if self.is_partial:
            return "too_early"
        return why if len(self.digits) < self.asked.least else ""


def read_asked(arguments: str) -> Asked | None:
    """Return what a tool call asks for; None for arguments that are not valid."""
    try:
        found = msgspec.convert(read_arguments(arguments).value, _Arguments)
    except (ProtocolError, msgspec.ValidationError):
        return None
    if found.min > found.max:
        return None
    return Asked(found.min, found.max, found.finish_on, round(found.timeout_s * 1000), found.sensitive)


def mask(digits: str) -> str:
    """Return digits as they may be shown: the last four of eight or more, otherwise none."""
    return "****" + (digits[-SHOWN:] if len(digits) >= SHOWN_FROM else "") if digits else ""


def output_of(digits: str, shortfall: Shortfall, ref: str = "") -> str:
    """Return the tool's output. `digits`: as they may be shown. `ref`: of sensitive ones that control keeps."""
    fields = {"digits": digits, "ref": ref, "error": shortfall}
    return json.dumps({name: value for name, value in fields.items() if value or name == "digits"}, separators=(",", ":"))


def ref_of(streams: int, number: int) -> str:
    """Return the name of a call's digits. `streams`: of the call, before this one; `number`: from 1, in this one."""
    return f"d{streams * REFS_PER_STREAM + number}"
