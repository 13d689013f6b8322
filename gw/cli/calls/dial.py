"""`call`: places an outbound call through Twilio and connects it to an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from gw.cli.calls import ACT_S, dialled
from gw.cli.context import EXIT_CODES, Settings, gateway_options, names_host
from gw.errors import GatewayError

if TYPE_CHECKING:
    from gw.config import Config


def complete_agent(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the configured agents. Empty for another host, and for an invalid configuration."""
    return _starting_with(incomplete, ctx, lambda config: config.agents)


def complete_account(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of the Twilio accounts, in the same way."""
    return _starting_with(incomplete, ctx, lambda config: config.twilio.accounts)


def _starting_with(text: str, ctx: click.Context, names: Callable[[Config], Iterable[str]]) -> list[CompletionItem]:
    try:
        found = () if names_host(ctx) else names(Settings(ctx.find_root().params.get("path")).config)
    except GatewayError:
        return []
    return [CompletionItem(name) for name in found if name.startswith(text)]


@click.command(
    short_help="Place a call from an agent to a number.",
    epilog="\b\nExamples:\n"
    "  gateway.py call +15551234567 --from +15557654321\n"
    "  gateway.py call +15551234567 --from +15557654321 --agent support --watch\n"
    "  gateway.py call +15551234567 --from +15557654322 --account sales\n\n" + EXIT_CODES,
)
@click.argument("to", callback=dialled)
@click.option("--from", "caller", required=True, callback=dialled, help="Caller ID: a number of your Twilio account, in E.164.")
@click.option(
    "--agent", default="default", show_default=True, shell_complete=complete_agent, help="The agent: a table under [agents]."
)
@click.option(
    "--account",
    default="",
    metavar="NAME",
    shell_complete=complete_account,
    help="The Twilio account: a table under [twilio.accounts]. Default: the account of [twilio].",
)
@click.option("--watch", is_flag=True, help="Follow the call until it ends, as in `calls watch`.")
@gateway_options
def call(settings: Settings, to: str, caller: str, agent: str, account: str, watch: bool, as_json: bool) -> None:
    """Place a call to TO; once it is answered, the agent talks.

    TO is a number in E.164, or sip:user@host. The running gateway places the call with its Twilio credentials, and Twilio must
    reach server.public_url. The call is listed, recorded and measured like any other, with direction outbound-api. An unanswered
    call leaves only its status webhook. Exit code 1 if Twilio refuses, the agent or account is unknown, or the gateway takes no
    calls.
    """
    from gw.terminal import print_json

    answer = settings.act("dial", timeout_s=ACT_S, to=to, caller=caller, agent=agent, account=account)
    if as_json and not watch:
        print_json(answer)
        return
    click.echo(f"{answer['call_sid']}: calling {answer['to']}.", err=as_json)
    if watch:
        from gw.cli.calls.watch import watch_one

        watch_one(settings, answer["call_sid"], as_json=as_json, ring_s=60.0)
