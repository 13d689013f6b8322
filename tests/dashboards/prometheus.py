"""A private Prometheus with the shipped rules, which scrapes one gateway every second."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from gw.bench.gateway_process import free_ports
from tests import debian
from tests.timing import scaled

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
_START_S = 20.0
_STOP_S = 10.0


class Prometheus:
    """Context manager: Prometheus on a free port of the loopback interface."""

    def __init__(self, folder: Path, target: str) -> None:
        """Write the configuration. `target` is the ops address of a gateway."""
        self._program = debian.unpacked("prometheus", "prometheus")
        self._folder = folder
        (self._port,) = free_ports(1)
        config = yaml.safe_load((RULES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            del job["scrape_timeout"]
            job["static_configs"] = [{"targets": [target]}]
        folder.mkdir(parents=True, exist_ok=True)
        for name in config["rule_files"]:
            shutil.copy(RULES / name, folder / name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    f"--web.console.templates={self._folder}",
                    f"--web.console.libraries={self._folder}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until_s = time.monotonic() + scaled(_START_S)
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=2):
                    return self
            except OSError:
                alive = self._process.poll() is None and time.monotonic() < until_s
                assert alive, (self._folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(scaled(_STOP_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def at(self, expression: str, when: float) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        found: list[dict[str, Any]] = self._get("query", query=expression, time=when)["result"]
        return found

    def over(self, expression: str, since: float, until: float, step_s: float) -> list[dict[str, Any]]:
        """Return the series of a range query."""
        found: list[dict[str, Any]] = self._get("query_range", query=expression, start=since, end=until, step=step_s)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **arguments: object) -> Any:
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/{what}?{urlencode(arguments)}", timeout=scaled(10)) as answer:
            return json.load(answer)["data"]
