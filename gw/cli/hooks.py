"""`hooks`: the endpoints that receive events, and events that were not delivered."""

from __future__ import annotations

import click

from gw.cli.context import (
    ASK_S,
    EXIT_CODES,
    EXIT_CODES_HERE,
    Failure,
    Settings,
    common_options,
    counted,
    gateway_options,
    print_answer,
)


@click.group(short_help="Try endpoints, and manage undelivered events.", epilog=EXIT_CODES_HERE)
def hooks() -> None:
    """Try the endpoints that receive signed requests, and manage events that were not delivered.

    \b
    Send a signed sample, and show how it is checked:   gateway.py hooks try https://api.example.com/voice/events
    List events that were not delivered:                gateway.py hooks list
    Send them once more:                                gateway.py hooks retry
    """


@hooks.command("list", epilog=f"\b\nExample:  gateway.py hooks list --waiting --json | jq '.[].call_sid'\n\n{EXIT_CODES}")
@click.option("--waiting", is_flag=True, help="Events that wait for their next attempt, oldest first.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of events.")
@gateway_options
def list_hooks(settings: Settings, waiting: bool, limit: int, as_json: bool) -> None:
    """List events that were not delivered, newest first. They are kept for a week, at most 100,000. Needs the running gateway."""
    from gw.terminal import Column, local_time, print_listing

    rows = settings.ask("hooks_list", state="waiting" if waiting else "dead", limit=limit)
    columns = (
        Column("id", lambda row: row["id"]),
        Column("since", lambda row: local_time(row["at"])),
        Column("call", lambda row: row["call_sid"], needs=140),
        Column(">attempts", lambda row: str(row["attempts"])),
        Column("next", lambda row: "-" if row["next_at"] is None else local_time(row["next_at"])),
        Column("why", lambda row: row["why"]),
        Column("endpoint", lambda row: row["url"], needs=120),
    )
    empty = "No event waits." if waiting else "All events were delivered."
    print_listing(columns, rows, empty=empty, as_json=as_json)


@hooks.command(
    "retry",
    short_help="Send undelivered events once more.",
    epilog=f"\b\nExamples:\n  gateway.py hooks retry\n  gateway.py hooks retry evt_0b1c\n\n{EXIT_CODES}",
)
@click.argument("ids", nargs=-1)
@gateway_options
def retry_hooks(settings: Settings, ids: tuple[str, ...], as_json: bool) -> None:
    """Send events that were not delivered once more: the given IDS, or all."""
    queued = _change(settings, "hooks_retry", "queued", ids, quiet=as_json)
    print_answer({"queued": queued}, f"{counted(queued, 'event is', 'events are')} sent once more.", as_json=as_json)


@hooks.command(
    "drop", epilog=f"\b\nExamples:\n  gateway.py hooks drop evt_0b1c\n  gateway.py hooks drop --all --yes\n\n{EXIT_CODES}"
)
@click.argument("ids", nargs=-1)
@click.option("--all", "whole", is_flag=True, help="Every event that was not delivered.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
def drop_hooks(settings: Settings, ids: tuple[str, ...], whole: bool, yes: bool, as_json: bool) -> None:
    """Delete events that were not delivered: the given IDS, or --all."""
    if bool(ids) == whole:
        raise click.UsageError("name events by their ids, or use --all")
    if not yes:
        some = "all events that were" if whole else counted(len(ids), "event that was", "events that were")
        click.confirm(f"Delete {some} not delivered?", abort=True, err=True)
    dropped = _change(settings, "hooks_drop", "dropped", ids, quiet=as_json)
    print_answer({"dropped": dropped}, f"{counted(dropped, 'event was', 'events were')} deleted.", as_json=as_json)


def _change(settings: Settings, command: str, name: str, ids: tuple[str, ...], *, quiet: bool) -> int:
    """Repeat a request until no event is left, and show the progress. Returns the number of events changed.

    Raises: Failure, with the number until then.
    """
    from gw.terminal import progress

    changed, answer = 0, {"left": 1, "after": 0}
    with progress(f"events {name}", shown=not quiet) as shown:
        bar = shown.add_task("", total=None)
        while answer["left"]:
            try:
                answer = settings.act(command, timeout_s=ASK_S, ids=list(ids), after=answer["after"])
            except Failure as error:
                if not changed:
                    raise
                so_far = f"at least {changed} were {name}: repeat the command for the others"
                raise type(error)(f"{error.message}; {so_far}") from None
            changed += answer[name]
            shown.update(bar, total=changed + answer["left"], completed=changed)
    return changed


@hooks.command(
    "try",
    short_help="Send a signed sample to a URL.",
    epilog="\b\nExamples:\n  gateway.py hooks try https://api.example.com/voice/events\n"
    f"  gateway.py hooks try route --from +15550001111 --to +15550002222\n\n{EXIT_CODES_HERE}",
)
@click.argument("url")
@click.option("--from", "caller", default="+15550000000", show_default=True, help="With route: the caller's number.")
@click.option("--to", "called", default="+15550000001", show_default=True, help="With route: the number that was called.")
@common_options
def try_hook(settings: Settings, url: str, caller: str, called: str, as_json: bool) -> None:
    """Send a signed sample of type hook.test to a URL. Show the request, the check of its signature and the answer.

    With the word route instead of a URL, ask the endpoint in [route] who answers a call, as control would; show the decision.
    The URL follows the rules of the configuration: https://, or an address in hooks.allow_networks. SUBMILLI_HOOK_SECRET has to
    be in the environment. Exit code 1 unless the endpoint answers with 2xx, and validly.
    """
    from gw.cli.tools import report
    from gw.config.hook_url import parse_networks
    from gw.config.tool_rules import url_problem
    from gw.control.hooks import trial

    config = settings.config
    if url == "route":
        if not config.route.url:
            raise Failure("route.url is not set; set the https:// URL of the endpoint in [route]")
        report(config, lambda: trial.try_route(config, caller, called), as_json=as_json)
        return
    if (problem := url_problem(url, parse_networks(config.hooks.allow_networks))) is not None:
        raise Failure(f"URL{problem}")
    report(config, lambda: trial.try_hook(config, url), as_json=as_json)
