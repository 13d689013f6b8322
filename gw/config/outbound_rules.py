"""Checks of [outbound]. Reads the machine's time zones."""

from __future__ import annotations

from collections.abc import Iterator

from gw.config import DIALLED, RETRIED, Config
from gw.config.route_rules import EXPECTED_ZONE, Broken, is_zone
from gw.config.route_times import parse_hours


def broken_outbound_rules(config: Config) -> Iterator[Broken]:
    """Yield every broken rule of outbound calls."""
    outbound = config.outbound
    if outbound.from_ and not DIALLED.fullmatch(outbound.from_):
        shown = outbound.from_[:60]
        yield {"outbound.from"}, f'outbound.from = "{shown}": expected a number of your Twilio account, such as +15551234567'
    try:
        parse_hours(outbound.hours)
    except ValueError as error:
        yield {"outbound.hours"}, f"outbound.hours: {error}"
    if not is_zone(outbound.zone):
        yield {"outbound.zone"}, f'outbound.zone = "{outbound.zone[:60]}": {EXPECTED_ZONE}'
    for word in outbound.retry_on:
        if word not in RETRIED:
            yield {"outbound.retry_on"}, f'outbound.retry_on: "{word}" is unknown; the outcomes are {", ".join(RETRIED)}'
    if outbound.voicemail and not outbound.amd:
        yield (
            {"outbound.voicemail", "outbound.amd"},
            "outbound.voicemail is set, and outbound.amd = false detects no answering machine; set outbound.amd = true, or "
            "remove the file",
        )
