"""gw.latest: the entries that were set last."""

from __future__ import annotations

from gw.latest import Latest


def test_one_more_entry_drops_the_oldest() -> None:
    kept: Latest[str, int] = Latest(2)
    for n, key in enumerate("abc"):
        kept[key] = n
    assert kept == {"b": 1, "c": 2}


def test_an_entry_that_is_set_again_is_the_latest() -> None:
    kept: Latest[str, int] = Latest(2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3
    kept["c"] = 4
    assert dict(kept) == {"a": 3, "c": 4}


def test_entries_are_removed_as_in_any_dictionary() -> None:
    kept: Latest[str, int] = Latest(2)
    kept["a"], kept["b"] = 1, 2
    assert kept.pop("a") == 1
    del kept["b"]
    kept["c"] = 3
    assert list(kept) == ["c"]
