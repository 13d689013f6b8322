"""Measures a deploy at noon: calls that stand, callers that come and go, and a reload in the middle.

    .venv/bin/python tests/bench/rollover.py [--calls 100] [--seconds 20] [--json]

The load is the bench's, on a core of its own, and its lateness is judged as there; the worker that has the calls is alone on
another; the new generation starts beside the load. Ten callers a second come, and stay three seconds. Exit code 1 where a call
was lost, a webhook refused, a caller heard a gap behind a buffer of 60 ms, the reload failed, or the run was void.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import gevent  # noqa: E402

from gw.bench.pressure import PressedGateway, Window  # noqa: E402
from gw.bench.run import Load, measure_beside  # noqa: E402
from gw.bench.stalling_store import open_store  # noqa: E402
from gw.errors import GatewayError  # noqa: E402
from gw.terminal import console, figure_table, ms  # noqa: E402

SCRIPT: Final = [sys.executable, str(ROOT / "gateway.py")]
#: In the window, before the reload.
BEFORE_S: Final = 3.0
_RELOAD_S: Final = 60.0


class Reloaded(PressedGateway):
    """The gateway with callers who come and go, and a reload in the window. Its former workers are what is measured."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state, self.took_s = "not begun", 0.0

    def processes(self) -> dict[int, str]:
        """Those that live on: control is another after the reload."""
        return {pid: role for pid, role in super().processes().items() if role == "worker"}

    @contextmanager
    def in_window(self) -> Iterator[None]:
        with super().in_window():
            reload = gevent.spawn_later(BEFORE_S, self._reload)
            yield
            reload.get(timeout=_RELOAD_S)

    def _reload(self) -> None:
        command = [*SCRIPT, "--config", str(self.config_path), "reload", "--json"]
        environ = {**os.environ, "TWILIO_AUTH_TOKEN": self._login[1], "OPENAI_API_KEY": "none"}
        began_s = time.monotonic()
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=_RELOAD_S, check=False)
        self.took_s = time.monotonic() - began_s
        self.state = json.loads(done.stdout)["state"] if done.stdout else done.stderr.strip()[-300:]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(1), default=100, show_default=True, help="Calls that stand.")
@click.option("--seconds", type=click.FloatRange(10), default=20, show_default=True, help="The window; the reload is in it.")
@click.option("--json", "as_json", is_flag=True)
def main(calls: int, seconds: float, as_json: bool) -> None:
    out = ROOT / "out" / "bench" / "rollover"
    out.mkdir(parents=True, exist_ok=True)
    load = Load(calls, seconds, maxima=False)
    store = open_store(out)
    try:
        gateway = Reloaded(SCRIPT, out, load, store, "coming")
        measured = measure_beside(gateway, gateway, out, load, lambda step: click.echo(step, err=True))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
    window = Window(measured, 0, gateway.came, gateway.refused, 0, 0)
    found = [*measured.void(), *window.failures()]
    if gateway.state != "done":
        found.append(f"the reload did not succeed: {gateway.state}")
    document = {**window.document(), "reload": gateway.state, "reload_s": round(gateway.took_s, 2), "found": found}
    (out / "rollover.json").write_text(json.dumps(document, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        table = figure_table("ms", ">p50", ">p99", ">p99.9")
        for name, key in (("TX lateness of the former worker", "tx"), ("at the caller", "caller")):
            table.add_row(name, *(ms(document.get(f"{key}_{quantile}_ms")) for quantile in ("p50", "p99", "p99.9")))
        console().print(table)
        console().print(
            f"{measured.standing} of {calls} calls stand, {gateway.came} came and went, {gateway.refused} were refused;"
            f" {measured.far['underruns']} gaps behind 60 ms; the reload took {gateway.took_s:.1f} s."
        )
        for what in found:
            console().print(what, style="red")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
