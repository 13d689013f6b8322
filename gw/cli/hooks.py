"""`hooks`: the endpoints that receive events."""

from __future__ import annotations

import click

from gw.cli.context import EXIT_CODES_HERE, Failure, Settings, common_options


@click.group(epilog=EXIT_CODES_HERE)
def hooks() -> None:
    """Try the endpoints that receive signed requests.

    \b
    Send a signed sample, and show how it is checked:   gateway.py hooks try https://api.example.com/voice/events
    """


@hooks.command(
    "try",
    short_help="Send a signed sample to a URL.",
    epilog=f"\b\nExample:  gateway.py hooks try https://api.example.com/voice/events\n\n{EXIT_CODES_HERE}",
)
@click.argument("url")
@common_options
def try_hook(settings: Settings, url: str, as_json: bool) -> None:
    """Send a signed sample of type hook.test to a URL. Show the request, the check of its signature and the answer.

    The URL follows the rules of the configuration: https://, or an address in hooks.allow_networks. SUBMILLI_HOOK_SECRET has to
    be in the environment. Exit code 1 unless the endpoint answers with 2xx.
    """
    from gw.cli.tools import report
    from gw.config.hook_url import parse_networks
    from gw.config.tool_rules import url_problem
    from gw.control.hooks import trial

    config = settings.config
    if (problem := url_problem(url, parse_networks(config.hooks.allow_networks))) is not None:
        raise Failure(f"URL{problem}")
    report(config, lambda: trial.try_hook(config, url), as_json=as_json)
