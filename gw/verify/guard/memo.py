"""How the explorer asks the production code: each question once, its answer remembered.

The parts that are asked have their doors replaced by stand-ins and nothing else. Decides nothing: what a part answers is the
part's own. Construct after whatever replaces parts of the production code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gw.config import Config
from gw.verify.guard.claim_row import RowStore


class Questions:
    """What has been asked about one call, and what the answers hang on."""

    def __init__(self, rows: RowStore) -> None:
        self.row_store = rows
        self._config = Config()
        self._known: dict[tuple[object, ...], Any] = {}

    def _once(self, key: tuple[object, ...], work: Callable[[], Any]) -> Any:
        found = self._known.get(key, self)
        if found is self:
            found = self._known[key] = work()
        return found


class StandIn:
    """A door's stand-in: exactly the attributes given."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)
