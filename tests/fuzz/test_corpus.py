"""Fuzz targets over the kept corpus, and over inputs that hypothesis derives from it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.fuzz.targets import CORPUS, TARGETS

FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
#: The corpus stays small: it is read in every run of the tests.
MAX_CORPUS_BYTES = 300_000


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus(name: str) -> None:
    files = [path for path in FILES if path.parent.name == name]
    assert files, f"no corpus in {CORPUS / name}"
    for path in files:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"reproduce: .venv/bin/python tests/fuzz/run.py --reproduce {path}")
            raise


def test_every_folder_of_the_corpus_has_a_target_and_all_are_small() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) <= MAX_CORPUS_BYTES


@st.composite
def changed(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """Change a file of the corpus: cut, repeat, insert, replace or join with another."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        match draw(st.sampled_from(["cut", "repeat", "insert", "replace", "join"])):
            case "cut":
                del data[start:end]
            case "repeat":
                data[start:start] = data[start:end] * draw(st.integers(1, 70))
            case "insert":
                data[start:start] = draw(st.binary(max_size=20))
            case "replace":
                data[start:end] = draw(st.binary(min_size=end - start, max_size=end - start))
            case _:
                data[start:] = draw(st.sampled_from(files))[draw(st.integers(0, 40)) :]
    return bytes(data[:8192])


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_near_the_corpus(name: str) -> None:
    files = [path.read_bytes() for path in FILES if path.parent.name == name]

    @settings(max_examples=examples(60))
    @given(changed(files) | st.binary(max_size=100))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
