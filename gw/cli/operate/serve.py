"""`serve`: runs the gateway in the foreground."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from gw.cli.context import EXIT_CODES_HERE, Settings, local_config_option, pass_settings

if TYPE_CHECKING:
    from gw.config import Config
    from gw.supervise.supervisor import Supervisor


@click.command(short_help="Run the gateway.", epilog=EXIT_CODES_HERE)
@local_config_option
@pass_settings
def serve(settings: Settings) -> None:
    """Run the gateway: one control process and the media workers, until SIGTERM or Ctrl-C.

    At a stop, new calls are refused and live ones may continue for server.stop_timeout_s; a second Ctrl-C ends them immediately.
    SIGHUP reloads: see `gateway.py reload --help`. Under systemd the gateway takes the socket it is passed and reports its
    state: see deploy/systemd.

    \b
    With the defaults and an embedded agent, no key:   gateway.py serve
    With a file, and secrets from the environment:     gateway.py serve --config submilli.toml
    """
    run_gateway(settings)


def run_gateway(settings: Settings, after_ready: Callable[[Supervisor], None] = lambda supervisor: None) -> None:
    """Run the gateway until a signal ends it. `after_ready` is called once, when it serves."""
    import gevent

    from gw import logs
    from gw.errors import ConfigError
    from gw.media.shared.greetings import greeting_problems
    from gw.scoreboard import CHECK
    from gw.supervise.child import end_with_parent, raise_descriptor_limit
    from gw.supervise.supervisor import Supervisor
    from gw.supervise.systemd import Notifier

    end_with_parent(os.environ)
    raise_descriptor_limit()
    config = settings.serving_config()
    if found := greeting_problems(config.agents, config.outbound.voicemail, config.recording.notice.file):
        raise ConfigError(found)
    logs.setup("supervisor", config.ops.log_level, numbers=config.ops.log_numbers)
    manager = Notifier(os.environ)

    def on_ready(supervisor: Supervisor) -> None:
        announce(supervisor)
        manager.ready(supervisor.scoreboard)
        after_ready(supervisor)

    supervisor = Supervisor(
        config,
        settings.program(),
        config_path=settings.path,
        on_ready=on_ready,
        on_check=lambda stalled: manager.check(supervisor.scoreboard, stalled),
        on_report=manager.report,
    )

    logs.follow(lambda: supervisor.scoreboard.log_level, config.ops.log_level)

    def on_signal(number: signal.Signals) -> None:
        log = logging.getLogger(__name__)
        if supervisor.stopping:
            log.info("%s again: live calls end now", number.name)
        else:
            log.info("%s: live calls may continue for %.0f s; repeat to end them now", number.name, config.server.stop_timeout_s)
        supervisor.stop()
        manager.stopping(supervisor.stop_bound_s)

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, on_signal, number)
    gevent.signal_handler(signal.SIGHUP, supervisor.reload)
    gevent.signal_handler(CHECK, partial(supervisor.reload, is_check=True))
    supervisor.run()
    logs.flush(1.0)


def announce(supervisor: Supervisor) -> None:
    """Print addresses, webhooks, authentication, and the talk page's URL if it is served."""
    host, port = supervisor.address
    for line in greeting(supervisor.config, f"{f'[{host}]' if ':' in host else host}:{port}", supervisor.worker_count):
        click.echo(line)
    if supervisor.talk_url:
        click.echo(f"Talk to it: {supervisor.talk_url}")


def greeting(config: Config, address: str, workers: int) -> list[str]:
    """Return the first three lines of `announce`."""
    from gw.config import REPEATED
    from gw.config.rules import is_loopback, without_password

    agent = config.agents.get("default")
    speaks = (
        "no default agent" if agent is None else "parrot" if agent.provider == "parrot" else f"{agent.provider} {agent.model}"
    )
    plural = "worker" if workers == 1 else "workers"
    public = config.server.public_url or "https://<your public name>"
    first = (
        f"Submilli answers calls on http://{address} ({workers} {plural}), agent {speaks}, "
        f"store {without_password(config.store.url)}, metrics on http://{config.ops.listen}/metrics."
    )
    second = (
        f"Configure a Twilio number: A call comes in = POST {public}/twilio/voice{REPEATED}, "
        f"Call status changes = POST {public}/twilio/status{REPEATED}"
    )
    if config.signed:
        named = ", ".join(account.name for account in config.accounts if account.name)
        more = f" and {named}" if named else ""
        third = f"Account {config.twilio.account_sid}{more}: signatures are checked against {public}, and streams need a token."
    else:
        exposed = config.server.public_url and not is_loopback(urlsplit(config.server.public_url).hostname or "")
        third = (
            "No Twilio credentials: loopback only; unsigned webhooks and streams without a token are accepted"
            + (f", so anyone who reaches {public} can place calls. " if exposed else ". ")
            + "Set twilio.account_sid and TWILIO_AUTH_TOKEN to take real calls."
        )
    return [first, second, third]
