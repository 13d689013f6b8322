"""Measure a deploy at noon: long calls, short calls that come and go, and a reload in the middle.

    .venv/bin/python tests/bench/reload.py [--calls 100] [--seconds 20] [--json]

The load is the bench's, on a separate core, and its lateness is judged as there; the worker that has the calls is alone on
another core; the new workers start beside the load. Ten short calls a second come and last three seconds. Exit code 1 where a
call was lost, a webhook refused, a caller heard a gap behind a buffer of 60 ms, the reload failed, or the run was void.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click
import gevent

from gw import ROOT
from gw.bench.run import Load
from gw.terminal import figure_table, ms
from tests.bench.load.pressure import PressedGateway
from tests.bench.script import COMMAND, conclude, measure_one_window

#: In the window, before the reload.
BEFORE_S: Final = 3.0
_RELOAD_S: Final = 60.0


class ReloadedGateway(PressedGateway):
    """The gateway beside short calls, reloaded in the window. Its former workers are measured."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state, self.took_s = "not begun", 0.0

    def processes(self) -> dict[int, str]:
        """The former workers alone: the reload replaces the control process."""
        return {pid: role for pid, role in super().processes().items() if role == "worker"}

    @contextmanager
    def around_window(self) -> Iterator[None]:
        with super().around_window():
            reload = gevent.spawn_later(BEFORE_S, self._reload)
            yield
            reload.get(timeout=_RELOAD_S)

    def _reload(self) -> None:
        command = [*COMMAND, "--config", str(self.config_path), "reload", "--json"]
        environ = {**os.environ, "TWILIO_AUTH_TOKEN": self.login[1], "OPENAI_API_KEY": "none"}
        began_s = time.monotonic()
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=_RELOAD_S, check=False)
        self.took_s = time.monotonic() - began_s
        self.state = json.loads(done.stdout)["state"] if done.stdout else done.stderr.strip()[-300:]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(1), default=100, show_default=True, help="Long calls.")
@click.option("--seconds", type=click.FloatRange(10), default=20, show_default=True, help="The window; the reload is in it.")
@click.option("--json", "as_json", is_flag=True)
def main(calls: int, seconds: float, as_json: bool) -> None:
    out = ROOT / "out" / "bench" / "reload"
    load = Load(calls, seconds, maxima=False)
    gateway, window = measure_one_window(ReloadedGateway, out, load, lambda step: click.echo(step, err=True))
    measured = window.measured
    failures = [*measured.void(), *window.failures()]
    if gateway.state != "done":
        failures.append(f"the reload did not succeed: {gateway.state}")
    document = {**window.document(), "reload": gateway.state, "reload_s": round(gateway.took_s, 2), "found": failures}

    def parts() -> Iterator[Any]:
        table = figure_table("ms", ">p50", ">p99", ">p99.9")
        for name, key in (("TX lateness of the former worker", "tx"), ("at the caller", "caller")):
            table.add_row(name, *(ms(document.get(f"{key}_{quantile}_ms")) for quantile in ("p50", "p99", "p99.9")))
        yield table
        yield (
            f"{measured.alive} of {calls} long calls are up, {gateway.came} short calls came and went, {gateway.refused} were"
            f" refused; {measured.far['underruns']} gaps behind 60 ms; the reload took {gateway.took_s:.1f} s."
        )

    conclude(out / "reload.json", document, failures, as_json, parts)


if __name__ == "__main__":
    main()
