"""Write the README's picture of the talk page: `python -m tests.dashboards.talk_picture FILE.png`.

A conversation in a browser, with an interruption, between a recorded voice and the AI twin.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from gw.twin import speech  # noqa: E402
from gw.twin.sound import silence, write_wav  # noqa: E402
from tests.browser.chromium import Chromium  # noqa: E402
from tests.browser.talking import microphone, serving  # noqa: E402

_WIDTH = 1000


def draw(folder: Path) -> bytes:
    """Return the page in a conversation as PNG: lanes, words, keypad, latency."""
    words = folder / "words.wav"
    spoken = (silence(2600), speech.load("weasels"), silence(1900), speech.load("monkeys"), silence(60_000))
    write_wav(words, b"".join(spoken))
    with serving(folder) as running, Chromium(_WIDTH, 1000, *microphone(words)) as browser:
        browser.go_to(f"{running.url}&raw=1")
        browser.click("call")
        browser.until("talk.turns.length === 2")
        time.sleep(2.5)
        assert (browser.complaints, browser.not_loaded) == ([], [])
        _, _, _, bottom = browser.box("turns-card")
        picture = browser.picture((0, 0, _WIDTH, bottom + 14))
        browser.click("hang-up")
        browser.until("talk.state === 'over'")
    return picture


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="submilli-talk-") as folder:
        Path(sys.argv[1]).write_bytes(draw(Path(folder)))


if __name__ == "__main__":
    main()
