"""gw.config.outbound_rules: a broken rule of [outbound] names its key."""

from __future__ import annotations

import pytest

from gw.config import Config, Outbound
from gw.config.outbound_rules import broken_outbound_rules
from gw.config.rules import broken_rules


def test_valid_rules() -> None:
    good = Outbound(from_="+15551234567", hours="22:00-06:00", zone="Europe/Berlin", retry_on=("machine",), voicemail="/x.wav")
    for one in (Outbound(), good):
        assert list(broken_outbound_rules(Config(outbound=one))) == []


@pytest.mark.parametrize(
    ("outbound", "key", "sentence"),
    [
        (Outbound(from_="me"), "from", 'outbound.from = "me": expected a number'),
        (Outbound(hours="9-17"), "hours", 'outbound.hours: "9-17" is not a range of hours'),
        (Outbound(zone="Berlin"), "zone", "expected a time zone of this machine"),
        (Outbound(retry_on=("late",)), "retry_on", 'outbound.retry_on: "late" is unknown; the outcomes are busy'),
        (Outbound(amd=False, voicemail="/x.wav"), "amd", "detects no answering machine"),
    ],
)
def test_a_broken_rule_names_its_key(outbound: Outbound, key: str, sentence: str) -> None:
    ((keys, text),) = broken_outbound_rules(Config(outbound=outbound))
    assert f"outbound.{key}" in keys
    assert sentence in text
    assert (keys, text) in list(broken_rules(Config(outbound=outbound), needed=frozenset()))
