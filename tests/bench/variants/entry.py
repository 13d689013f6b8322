"""Entry point of the gateway with one variant: `entry.py VARIANT serve ...`. Only its workers differ."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from gw.cli import main
from gw.cli.context import Settings
from tests.bench.variants import APPLIED, VARIANTS
from tests.bench.variants.seam import NotHereError


def run() -> None:
    name = sys.argv.pop(1)
    # child processes are started through this file too
    Settings.program = lambda _: [sys.executable, __file__, name]  # type: ignore[method-assign]
    if "worker" in sys.argv:
        try:
            VARIANTS[name].apply()
        except NotHereError as error:
            sys.exit(f"{name}: {error}")
        print(f"{APPLIED}{name}", file=sys.stderr, flush=True)  # the study looks for it in the gateway's log
    main()


if __name__ == "__main__":
    run()
