"""`call`: places an outbound call through Twilio and connects it to an agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from gw.cli.calls import ACT_S, dialled
from gw.cli.context import EXIT_CODES, Failure, Settings, gateway_options, names_host, print_answer
from gw.errors import GatewayError

if TYPE_CHECKING:
    from gw.config import Config


#: Interval between questions about a call that is awaited, and how long they may fail.
POLL_S: Final = 2.0
AWAY_S: Final = 60.0


def _variables(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Parse variables. Raises click.BadParameter."""
    from gw.control.outbound.list_file import variables_problems

    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        variables[name] = value
    if problems := variables_problems(variables):
        raise click.BadParameter("; ".join(problems))
    return variables


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
    "  gateway.py call +15551234567 --from +15557654322 --account sales\n"
    "  gateway.py call +15551234567 --var name=Ada --amd --wait\n\n" + EXIT_CODES,
)
@click.argument("to", callback=dialled)
@click.option("--from", "caller", callback=dialled, help="Caller ID: a number of your Twilio account. Default: outbound.from.")
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
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", callback=_variables, help="Value of {{NAME}} in the agent's texts."
)
@click.option("--amd", is_flag=True, help="Detect answering machines: play outbound.voicemail to them, and hang up on a fax.")
@click.option("--watch", is_flag=True, help="Follow the call until it ends, as in `calls watch`.")
@click.option("--wait", is_flag=True, help="Wait for the call's end. Exit code 1 unless it was answered.")
@gateway_options
def call(
    settings: Settings,
    to: str,
    caller: str | None,
    agent: str,
    account: str,
    variables: dict[str, str],
    amd: bool,
    watch: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Place a call to TO; once it is answered, the agent talks.

    TO is a number in E.164, or sip:user@host. The running gateway places the call with its Twilio credentials, and Twilio must
    reach server.public_url. The call is listed, recorded and measured like any other, with direction outbound-api. An unanswered
    call leaves only its status webhook. Exit code 1 if Twilio refuses, the agent or account is unknown, or the gateway takes no
    calls. For a list of numbers see `calls dial`.
    """
    from gw.terminal import print_json

    if watch and wait:
        raise click.UsageError("--watch and --wait exclude each other")
    caller = caller or settings.config.outbound.from_
    if not caller:
        raise click.UsageError("there is no caller ID: pass --from, or set outbound.from")
    more = {**({"variables": variables} if variables else {}), **({"amd": True} if amd else {})}  # unknown to an older gateway
    answer = settings.act("dial", timeout_s=ACT_S, to=to, caller=caller, agent=agent, account=account, **more)
    if as_json and not (watch or wait):
        print_json(answer)
        return
    click.echo(f"{answer['call_sid']}: calling {answer['to']}.", err=as_json)
    if watch:
        from gw.cli.calls.watch import watch_one

        watch_one(settings, answer["call_sid"], as_json=as_json, ring_s=60.0)
    elif wait:
        _wait(settings, answer, as_json=as_json)


def _wait(settings: Settings, placed: dict[str, str], *, as_json: bool) -> None:
    """Wait for the end of a call at Twilio, and print its result. Raises Failure unless it was answered."""
    from gw.control.outbound.plan import result_of

    until_s = time.monotonic() + AWAY_S
    while True:
        try:
            seen = settings.act("dial_status", timeout_s=ACT_S, call_sid=placed["call_sid"], account=placed["account"])
            until_s = time.monotonic() + AWAY_S
            if seen["is_over"]:
                break
        except Failure:
            if time.monotonic() >= until_s:
                raise
        time.sleep(POLL_S)
    result = result_of(seen["status"], seen["answered_by"])
    length = f" after {seen['duration_s']} s" if seen["duration_s"] else ""
    by = f", answered by {seen['answered_by']}" if seen["answered_by"] else ""
    print_answer({**placed, **seen, "result": result}, f"{placed['call_sid']}: {result}{length}{by}.", as_json=as_json)
    if seen["status"] != "completed":
        raise click.exceptions.Exit(1)
