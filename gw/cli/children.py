"""`control` and `worker`: how `serve` starts its own processes. Hidden, since nobody types them."""

from __future__ import annotations

import os
import sys

import click

from gw.cli.context import Settings, pass_settings


@click.command(hidden=True)
@click.option("--ready-fd", type=int, required=True)
@pass_settings
def control(settings: Settings, ready_fd: int) -> None:
    """The control process."""
    from gw.process import end_with_parent, is_orphan

    end_with_parent(os.environ)
    from gw import logs
    from gw.control.main import run

    config = settings.serving_config()
    logs.setup("control", config.ops.log_level)
    code = run(config, ready_fd, is_orphan=lambda: is_orphan(os.environ))
    logs.flush(1.0)
    sys.exit(code)


@click.command(hidden=True)
@click.option("--slot", type=int, required=True)
@click.option("--listen-fd", type=int, required=True)
@click.option("--ready-fd", type=int, required=True)
@pass_settings
def worker(settings: Settings, slot: int, listen_fd: int, ready_fd: int) -> None:
    """A media worker."""
    from gw.process import HURRY, end_with_parent

    end_with_parent(os.environ)
    from gw import logs
    from gw.media.worker import run

    config = settings.serving_config()
    logs.setup(f"worker-{slot}", config.ops.log_level)
    code = run(config, slot, listen_fd, ready_fd, HURRY)
    logs.flush(1.0)
    sys.exit(code)
