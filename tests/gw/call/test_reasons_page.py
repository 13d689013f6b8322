"""deploy/reasons.md lists each reason once, under its result."""

from __future__ import annotations

import re
from pathlib import Path

from gw.call.state import Reason, Result, result_of

PAGE = Path(__file__).parents[3] / "deploy" / "reasons.md"


def test_the_page_names_each_reason_once_under_its_result() -> None:
    listed: list[tuple[str, str]] = []
    result = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            result = next(iter(re.findall(r"`(\w+)`", line)), "")  # other parts have no result
            assert not result or result in set(Result)
        elif result and (named := re.match(r"\| `(\w+)` \|", line)):
            listed.append((named[1], result))
    assert sorted(listed) == sorted((reason.value, result_of(reason).value) for reason in Reason)
