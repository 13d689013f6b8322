"""`talk`: a telephone in the browser, or a WAV file from the terminal, for a gateway without Twilio credentials."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gw.cli.context import EXIT_CODES, Failure, Settings, Unreachable, gateway_options

if TYPE_CHECKING:
    from gw.supervise.supervisor import Supervisor

_TALK_S: Final = 5.0
#: After the words, for the agent's answer to come and be heard.
_ANSWER_S: Final = 30.0


@click.command(short_help="Talk to the gateway, in the browser.", epilog=EXIT_CODES)
@click.option(
    "--wav",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Speak this file (16-bit, 8 kHz, mono) to a gateway that runs, instead of the microphone.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="With --wav: write what was heard to this file.")
@click.option("--agent", default="", help="With --wav: the agent. In the browser add &agent=NAME to the URL.")
@click.option("--no-browser", is_flag=True, help="Only print the URL.")
@gateway_options
def talk(settings: Settings, wav: Path | None, out: Path | None, agent: str, no_browser: bool, as_json: bool) -> None:
    """Open a page in the browser that is a telephone: your microphone in, the agent out.

    It shows both voices, the words, the latency of each turn and the punctuality of the frames. Without a running gateway this
    command runs one until Ctrl-C, like `serve`. The page is for gateways without Twilio credentials, on this machine only; its
    URL has a key that is new with each start.

    \b
    With the embedded agent, no key:         gateway.py talk
    With your own agent:                     gateway.py talk --config submilli.toml
    A file, to a gateway that runs:          gateway.py talk --wav question.wav --out answer.wav
    """
    if wav is not None:
        _speak(settings, wav, out, agent, as_json=as_json)
        return
    if out is not None:
        raise click.UsageError("--out needs --wav")
    try:
        url = str(settings.act("talk", timeout_s=_TALK_S)["url"])
    except Unreachable as error:
        if not error.is_absent:
            raise
        _serve(settings, browse=not no_browser and not as_json)
        return
    if as_json:
        from gw.terminal import print_json

        print_json({"url": url})
        return
    click.echo(f"Talk to it: {url}")
    if not no_browser:
        _browse(url)


def _serve(settings: Settings, *, browse: bool) -> None:
    """Run a gateway, and open its page once it serves."""
    from gw.cli.operate.serve import run_gateway
    from gw.config import NO_TALK

    if settings.serving_config().signed:
        raise Failure(NO_TALK)
    click.echo("No gateway runs yet; this one runs until Ctrl-C.")

    def open_page(supervisor: Supervisor) -> None:
        if browse:
            _browse(supervisor.talk_url)

    run_gateway(settings, open_page)


def _browse(url: str) -> None:
    """Open a URL in the desktop's browser, if there is a desktop."""
    opener = shutil.which("xdg-open")
    if opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        click.echo("Open this URL in a browser on this machine.")
        return
    quiet = subprocess.DEVNULL
    subprocess.Popen([opener, url], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _speak(settings: Settings, wav: Path, out: Path | None, agent: str, *, as_json: bool) -> None:
    """Speak a file to the running gateway as a caller, and report on what was heard."""
    from gw.cli.twin import phrase, print_reports, run_calls
    from gw.twin.sound import RATE_HZ, write_wav
    from gw.twin.twilio.account import TwilioTwin
    from gw.twin.twilio.call_report import report
    from gw.twin.twilio.steps import PATIENCE_S, PAUSE_S, Step
    from gw.twin.twilio.stream import CallPlan

    try:
        audio = phrase(str(wav) if wav.suffix.lower() == ".wav" else f"{wav}.wav")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    config = settings.config
    if config.signed:
        from gw.config import NO_TALK

        raise Failure(NO_TALK)
    steps = (
        Step("say", "quiet", PAUSE_S, audio=audio, patience_s=PATIENCE_S),
        Step("hang_up", "quiet", PAUSE_S * 2, patience_s=_ANSWER_S),
    )
    longest_s = PATIENCE_S + len(audio) / RATE_HZ + 2 * _ANSWER_S
    url = f"http://{config.server.listen}"
    account = TwilioTwin(url)
    account.start()
    (call,) = run_calls(account, CallPlan(hang_up=False, steps=steps, agent=agent, max_s=longest_s), 1, url)
    found = report(call)
    if out is not None:
        write_wav(out, call.heard_with_gaps)
    print_reports([found], as_json=as_json)
    if found.problems:
        raise click.exceptions.Exit(1)
