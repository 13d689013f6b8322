"""Shared parts of the measuring scripts: one window beside short calls, and the verdict at the end.

A script patches for gevent and puts the repository on `sys.path` before it imports this module.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from gw import ROOT
from gw.bench.run import Load, OnStep, measure_with
from gw.errors import GatewayError
from gw.terminal import console
from tests.bench.load.pressure import PressedGateway, Window
from tests.bench.load.stalling_store import open_store

#: The measured gateway, started as a user starts it.
COMMAND: Final = [sys.executable, str(ROOT / "gateway.py")]

G = TypeVar("G", bound=PressedGateway)


def measure_one_window(gateway_type: Callable[..., G], out: Path, load: Load, on_step: OnStep) -> tuple[G, Window]:
    """Measure a gateway beside short calls, on a new store. Raises click.ClickException."""
    out.mkdir(parents=True, exist_ok=True)
    store = open_store(out)
    try:
        gateway = gateway_type(COMMAND, out, load, store, "coming")
        measured = measure_with(gateway, gateway, out, load, on_step)
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
    return gateway, Window.of(measured, gateway)


def conclude(
    path: Path, document: dict[str, Any], failures: Sequence[str], as_json: bool, parts: Callable[[], Iterable[Any]]
) -> None:
    """Write the document to `path`, print it or its `parts`, and exit: 1 where there are failures."""
    path.write_text(json.dumps(document, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        screen = console()
        for part in parts():
            screen.print(part)
        for failure in failures:
            screen.print(failure, style="red")
    sys.exit(1 if failures else 0)
