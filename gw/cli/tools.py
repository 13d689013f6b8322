"""`tools`: lists the tools of agents, and calls one as control would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from gw.cli.context import EXIT_CODES_HERE, Failure, Settings, common_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gw.config import Config
    from gw.control.hooks.trial import Exchange, Trial

_BUILT_IN: Final = "built in"


@click.group(epilog=EXIT_CODES_HERE)
def tools() -> None:
    """List the tools of agents, and try one.

    \b
    All tools, and the agents that have them:   gateway.py tools list
    Call one, and show request and answer:      gateway.py tools try lookup_order --arguments '{"number":"7"}'
    """


@tools.command(
    "list",
    short_help="List all tools.",
    epilog=f"\b\nExample:  gateway.py tools list --json | jq '.[].name'\n\n{EXIT_CODES_HERE}",
)
@common_options
def list_tools(settings: Settings, as_json: bool) -> None:
    """List the configured and the built-in tools, with the agents that have them."""
    from gw.terminal import Column, dash, print_listing

    columns = (
        Column("name", lambda row: row["name"]),
        Column("agents", lambda row: dash(", ".join(row["agents"]))),
        Column("mode", lambda row: row["mode"], needs=80),
        Column(">time", lambda row: "-" if row["timeout_s"] is None else f"{row['timeout_s']:g} s", needs=80),
        Column("repeated", lambda row: "yes" if row["idempotent"] else "no", needs=100),
        Column("url", lambda row: row["url"]),
    )
    print_listing(columns, list(_rows(settings.config)), empty="No tool is configured.", as_json=as_json)


def _rows(config: Config) -> Iterator[dict[str, Any]]:
    import json

    from gw.config import BUILT_IN_TOOLS
    from gw.config.hook_url import shown

    def agents(name: str) -> list[str]:
        return [agent for agent, keys in config.agents.items() if name in keys.tools]

    for name in BUILT_IN_TOOLS:
        yield {"name": name, "agents": agents(name), "mode": _BUILT_IN, "timeout_s": None, "idempotent": True, "url": "-"}
    for name, tool in config.tools.items():
        yield {
            "name": name,
            "agents": agents(name),
            "mode": tool.mode,
            "timeout_s": tool.timeout_s,
            "idempotent": tool.idempotent,
            "url": shown(tool.url),
            "description": tool.description,
            "parameters": json.loads(tool.parameters),
        }


def _complete(ctx: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from gw.errors import ConfigError

    settings = ctx.find_object(Settings)
    try:
        names = list(settings.config.tools) if settings else []
    except ConfigError:
        names = []
    return [CompletionItem(name) for name in names if name.startswith(begin)]


@tools.command(
    "try",
    short_help="Call a tool, and show request and answer.",
    epilog='\b\nExamples:\n  gateway.py tools try lookup_order --arguments \'{"number":"7"}\'\n'
    f"  gateway.py tools try lookup_order --json | jq .output\n\n{EXIT_CODES_HERE}",
)
@click.argument("name", shell_complete=_complete)
@click.option("--arguments", default="{}", metavar="JSON", help="The arguments, as the AI would write them.  [default: {}]")
@common_options
def try_tool(settings: Settings, name: str, arguments: str, as_json: bool) -> None:
    """Call a tool as control would: check the arguments, sign and send the request, show the answer and the AI's output.

    The request is real, and so is its effect. Its call is CA and 32 zeros. SUBMILLI_HOOK_SECRET has to be in the environment.
    Exit code 1 unless the output is the tool's result.
    """
    from gw.control.hooks import trial

    config = settings.config
    if name not in config.tools:
        known = ", ".join(config.tools) or "none"
        raise click.BadParameter(f"{name} is not a configured tool; those are: {known}", param_hint="NAME")
    report(config, lambda: trial.try_tool(config, name, arguments), as_json=as_json)


def report(config: Config, trial: Any, *, as_json: bool) -> None:
    """Run a trial and print it. Raises Failure without a secret, and Exit with code 1 after a failed trial."""
    from gw.terminal import print_json

    if not config.secrets.hook_secret:
        raise Failure("SUBMILLI_HOOK_SECRET is not set here, so the request cannot be signed; set it in the environment")
    found: Trial = trial()
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.ok:
        raise click.exceptions.Exit(1)


def _print(trial: Trial) -> None:
    from gw.terminal import verbatim

    rows = [fact for exchange in trial.exchanges for fact in _exchange(exchange)]
    if trial.output:
        rows.append(("output", trial.output))
    rows.append(("outcome", f"{trial.outcome}, in {trial.ms:g} ms"))
    for name, value in rows:  # not a table, which would fold what is to be copied
        click.echo(f"{name:<9}  {verbatim(value).plain}".rstrip())


def _exchange(exchange: Exchange) -> Iterator[tuple[str, str]]:
    from gw.protocol.hooks.signature import HEADER

    yield "request", f"POST {exchange.url}"
    for name, value in exchange.headers.items():
        yield "", f"{name}: {value}"
    yield "body", exchange.body
    issued = exchange.headers[HEADER].partition(",")[0].removeprefix("t=")
    yield "signature", exchange.signature_fault or "valid; v1 is the output of this command:"
    signed = f"{issued}.{exchange.body}".replace("'", "'\\''")
    yield "", f"printf %s '{signed}' | openssl dgst -sha256 -hmac \"$SUBMILLI_HOOK_SECRET\""
    if exchange.problem:
        yield "problem", f"{exchange.problem}, after {exchange.ms:g} ms"
    else:
        yield "answer", f"HTTP {exchange.status}, after {exchange.ms:g} ms"
        yield "", exchange.answer if len(exchange.answer) <= 2000 else f"{exchange.answer[:2000]}..."
