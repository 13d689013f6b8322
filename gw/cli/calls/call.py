"""`call`: let Twilio call somebody, and an agent talk to them."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from gw.cli.calls import ACT_S, dialled
from gw.cli.context import EXIT_CODES, Settings, config_option, elsewhere, json_option, pass_settings
from gw.errors import GatewayError


def complete_agent(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The configuration's agents; none where it cannot be read, or is another machine's."""
    try:
        agents = {} if elsewhere(ctx) else Settings(ctx.find_root().params.get("path")).config.agents
    except GatewayError:
        return []
    return [CompletionItem(name) for name in agents if name.startswith(incomplete)]


@click.command(
    short_help="Call somebody: an agent talks to whoever answers.",
    epilog="\b\nExamples:\n"
    "  gateway.py call +15551234567 --from +15557654321\n"
    "  gateway.py call +15551234567 --from +15557654321 --agent support --watch\n\n" + EXIT_CODES,
)
@click.argument("to", callback=dialled)
@click.option(
    "--from",
    "caller",
    required=True,
    callback=dialled,
    help="A number of your Twilio account, in E.164: what the other side sees.",
)
@click.option(
    "--agent", default="default", show_default=True, shell_complete=complete_agent, help="Who talks: a table under [agents]."
)
@click.option("--watch", is_flag=True, help="Follow the call until it ends, as `calls watch` does.")
@config_option
@json_option
@pass_settings
def call(settings: Settings, to: str, caller: str, agent: str, watch: bool, as_json: bool) -> None:
    """Call somebody: Twilio rings TO (E.164, or sip:user@host), and once it is answered the agent talks.

    The running gateway places the call with its Twilio credentials, so Twilio must reach server.public_url. It is a call like any
    other from then on: listed, recorded, measured, of direction outbound-api. One that is not answered leaves only its status
    webhook. Exit code 1 when Twilio refuses, when the agent is not known or when the gateway takes no calls now.
    """
    from gw.terminal import print_json

    answer = settings.act("dial", timeout_s=ACT_S, to=to, caller=caller, agent=agent)
    if as_json and not watch:
        print_json(answer)
        return
    click.echo(f"{answer['call_sid']} rings {answer['to']}.", err=as_json)
    if watch:
        from gw.cli.calls.watch import watch_one

        watch_one(settings, answer["call_sid"], as_json=as_json, ring_s=60.0)
