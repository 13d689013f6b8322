"""A gateway process without credentials, and its AI twin, to be talked to."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gw.bench.gateway_process import free_ports
from gw.twin.ai.script import conversation
from gw.twin.ai.server import AiTwin
from tests.program import program

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("SUBMILLI_", "TWILIO_", "OPENAI_"))}


@dataclass
class Running:
    """A gateway without credentials, and its AI. `url`: its talk page."""

    url: str
    config: Path
    ai: AiTwin

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the gateway to its end."""
        started = self.start(*words)
        printed, errors = started.communicate(timeout=60)
        return subprocess.CompletedProcess(started.args, started.returncode, printed, errors)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of the gateway."""
        command, pipe = [*program(), *words, "--config", str(self.config)], subprocess.PIPE
        return subprocess.Popen(command, env=ENVIRON, cwd=self.config.parent, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def serving(folder: Path) -> Iterator[Running]:
    """Run a gateway by `talk`, with its files in `folder`."""
    public, ops = free_ports(2)
    with AiTwin(conversation(), needs_key=False) as ai:
        config = folder / "submilli.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{public}"\n[ops]\nlisten = "127.0.0.1:{ops}"\n'
            f'[agents.default]\nprovider = "openai"\nbase_url = "{ai.url}"\n'
        )
        command = [*program(), "talk", "--no-browser", "--config", str(config)]
        with (folder / "log").open("w") as log:
            gateway = subprocess.Popen(command, env=ENVIRON, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert gateway.stdout is not None
            line = ""
            while not line.startswith("Talk to it: "):
                line = gateway.stdout.readline()
                assert line, (folder / "log").read_text()
            yield Running(line.removeprefix("Talk to it: ").strip(), config, ai)
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.communicate(timeout=60)


def microphone(words: Path) -> tuple[str, ...]:
    """Return the options of a Chromium whose microphone plays a WAV file once."""
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    return (*fake, f"--use-file-for-fake-audio-capture={words}%noloop")
