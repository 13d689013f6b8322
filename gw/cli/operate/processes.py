"""`control`, `worker` and `trial`: the processes of a gateway. Hidden: `serve` starts them.

Control and trial import with the garbage collector off: imports leave nothing to collect, and the search takes a fifth of their
CPU. What was imported is frozen, so that no later collection looks at it, the last one at the exit included.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial

import click

from gw.cli.context import Settings, pass_settings


@click.command(hidden=True)
@click.option("--ready-fd", type=int, required=True)
@click.option("--scoreboard-fd", type=int, default=-1)
@click.option("--row", type=int, default=0)
@click.option("--nice", type=int, default=0)
@pass_settings
def control(settings: Settings, ready_fd: int, scoreboard_fd: int, row: int, nice: int) -> None:
    """Run the control process."""
    from gw.supervise.child import LEAVE, await_parent_end, end_with_parent, is_orphan

    end_with_parent(os.environ)
    gc.disable()
    from gw import logs
    from gw.control.main import run
    from gw.scoreboard import Scoreboard

    gc.freeze()
    gc.enable()
    config = settings.serving_config("control")
    logs.setup("control", config.ops.log_level, numbers=config.ops.log_numbers)
    os.nice(nice)
    scoreboard = Scoreboard.attach(scoreboard_fd) if scoreboard_fd >= 0 else Scoreboard.private()
    logs.follow(partial(scoreboard.log_level_of, row), config.ops.log_level)
    orphan, settled = lambda: is_orphan(os.environ), lambda: await_parent_end(os.environ)
    code = run(
        config,
        ready_fd,
        scoreboard=scoreboard,
        row=scoreboard.row(row),
        is_orphan=orphan,
        await_parent_end=settled,
        leave=LEAVE,
    )
    logs.flush(1.0)
    sys.exit(code)


@click.command(hidden=True)
@click.option("--index", type=int, required=True)
@click.option("--listen-fd", type=int, required=True)
@click.option("--ready-fd", type=int, required=True)
@click.option("--scoreboard-fd", type=int, default=-1)
@click.option("--row", type=int, default=0)
@click.option("--core", "cores", default="-1", help="Its cores, comma-separated; -1: all.")
@click.option("--low-priority", is_flag=True, help="Start on the supervisor's cores: other workers may have calls on these.")
@pass_settings
def worker(
    settings: Settings, index: int, listen_fd: int, ready_fd: int, scoreboard_fd: int, row: int, cores: str, low_priority: bool
) -> None:
    """Run a media worker."""
    from gw.supervise.child import HURRY, LEAVE, await_parent_end, end_with_parent, is_orphan
    from gw.supervise.cpu_affinity import bind

    end_with_parent(os.environ)
    take_cores = partial(bind, [int(core) for core in cores.split(",") if int(core) >= 0])
    if not low_priority:
        take_cores()  # first of all, because all workers start at the same time
    from gw import logs
    from gw.media.worker import run
    from gw.scoreboard import Scoreboard

    config = settings.serving_config("worker")
    logs.setup(f"worker-{index}", config.ops.log_level, numbers=config.ops.log_numbers)
    logs.capture_prints()
    scoreboard = Scoreboard.attach(scoreboard_fd) if scoreboard_fd >= 0 else None
    if scoreboard is not None:
        logs.follow(partial(scoreboard.log_level_of, row), config.ops.log_level)
    code = run(
        config,
        index,
        listen_fd,
        ready_fd,
        before_ready=take_cores,
        hurry=HURRY,
        leave=LEAVE,
        scoreboard=scoreboard,
        row=scoreboard.row(row) if scoreboard is not None else None,
        is_orphan=lambda: is_orphan(os.environ),
        await_parent_end=lambda: await_parent_end(os.environ),
    )
    logs.flush(1.0)
    sys.exit(code)


@click.command(hidden=True)
@click.option("--scoreboard-fd", type=int, required=True)
@click.option("--ops-listen", required=True, help="The running control's ops.listen.")
@click.option("--admin-socket", required=True, help="The running control's ops.admin_socket.")
@pass_settings
def trial(settings: Settings, scoreboard_fd: int, ops_listen: str, admin_socket: str) -> None:
    """Construct control and a worker beside the running ones, and print the problem as JSON."""
    from gw.supervise.child import STARTING_NICE, end_with_parent

    end_with_parent(os.environ)
    os.nice(STARTING_NICE)  # calls continue on this machine
    gc.disable()
    from gw.scoreboard import Scoreboard
    from gw.supervise.trial import problem_of
    from gw.terminal import print_json

    gc.freeze()
    gc.enable()
    config = settings.serving_config()
    Scoreboard.attach(scoreboard_fd).close()
    print_json({"problem": problem_of(config, ops_listen, admin_socket)})
