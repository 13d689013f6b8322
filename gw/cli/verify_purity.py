"""`verify purity`: what the TX loop can possibly do, and what it did, held against the allow-list."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import click

from gw.cli.context import EXIT_CODES_HERE, json_option
from gw.cli.verify import NotProven

if TYPE_CHECKING:
    from gw.verify.purity.report import Report


@click.command(short_help="What the TX loop can do, and did, against the allow-list.", epilog=EXIT_CODES_HERE)
@click.option("--static", is_flag=True, help="Only read the source; place no calls.")
@json_option
def purity(static: bool, as_json: bool) -> None:
    """Prove that the TX loop does what the allow-list says, and nothing else.

    First the source is read, from the loop's entry to the leaves: each operation must be resolved and must be on the list
    (gw/verify/purity/allow_list.py). Then TX is led through all its branches, and calls go through a media plane in this process, while
    every call TX makes and every audit event of the media plane is watched. Exit code 1 if anything else was found.

    \b
    Everything, about ten seconds:      gateway.py verify purity
    The source alone, a second:         gateway.py verify purity --static
    For a script:                       gateway.py verify purity --json
    """
    from gw.terminal import console, print_json

    report = check(static_only=static)
    if as_json:
        print_json(report.document())
    else:
        console().print(report.render())
    if not report.ok():
        found = (("TX purity", report.tx_problems()), ("clean separation", report.ring_2_problems()))
        raise NotProven(*(guarantee for guarantee, problems in found if problems))


def check(*, static_only: bool = False) -> Report:
    """Read, and watch unless told not to."""
    from gw.verify.purity.check import read
    from gw.verify.purity.dynamic import watch_calls
    from gw.verify.purity.report import Report

    began_s = time.monotonic()
    static = read()
    if static_only:
        return Report(static, None, time.monotonic() - began_s)
    logging.getLogger().addHandler(logging.NullHandler())  # broken calls are placed on purpose: nobody needs to read of them
    return Report(static, watch_calls(static), time.monotonic() - began_s)
