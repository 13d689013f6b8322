"""gw.cli.status: the long holds."""

from __future__ import annotations

from tests.gw.cli.conftest import HOLDS, CommandLine


def test_holds_are_shown_with_their_stacks(cli: CommandLine, gateway: list[str]) -> None:
    title, *lines = (line.split() for line in cli.run("status", "--holds").stdout.splitlines())
    assert title[:4] == ["when", "worker", "pid", "kind"]
    assert lines[0][-7:] == ["1", "4711", "ai_in", "4.120", "3.900", "gw/media/depth0.py:40", "deep0"]
    assert lines[1:4] == [[f"gw/media/depth{n}.py:{40 + n}", f"deep{n}"] for n in (1, 2, 3)]
    assert " ".join(lines[4][-7:]) == "0 4710 hub 1.100 0.000 not sampled"
    assert cli.document("status", "--holds") == HOLDS
