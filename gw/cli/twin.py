"""`twin`: the stand-ins as commands, an AI without a key and a caller of real speech."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gw.cli.context import (
    EXIT_CODES,
    EXIT_CODES_HERE,
    Failure,
    Interrupted,
    Settings,
    Unreachable,
    config_option,
    counted,
    interruptible,
    json_option,
    pass_settings,
)

if TYPE_CHECKING:
    from gw.twin.ai.ledger import AiLedger
    from gw.twin.ai.script import AiScript
    from gw.twin.ai.server import AiTwin
    from gw.twin.twilio.account import TwilioTwin
    from gw.twin.twilio.call_report import CallReport
    from gw.twin.twilio.caller import TwinCall
    from gw.twin.twilio.steps import Step
    from gw.twin.twilio.stream import CallPlan

#: Response after the greeting: that to the caller's first turn.
FIRST_ANSWER: Final = 2
#: Port of the AI's stand-in, so that a configuration can name it.
AI_PORT: Final = 8090
_LOOK_S: Final = 0.05
#: Beside a call's own limit, for callbacks and the end.
_SETTLE_S: Final = 10.0
_DEFAULT_STEPS: Final = ("say=something-wrong", "say=weasels", "say=monkeys", "hang_up")


@click.group(short_help="Run a stand-in: an AI without a key, or a caller.", epilog=EXIT_CODES_HERE)
def twin() -> None:
    """Run one of the stand-ins that tests and demo use, against any gateway.

    \b
    An AI without a key:      gateway.py twin ai
    A call of real speech:    gateway.py twin call
    Faults, by name:          gateway.py twin ai --faults
    """


# -- the AI -------------------------------------------------------------------------------------------------------------


def _list_ai_faults(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from gw.twin.ai.faults import RESPONSES, TURNS
    from gw.twin.ai.script import CONNECT_FAULTS, SESSION_FAULTS

    for title, names in (
        ("of the connection", CONNECT_FAULTS),
        ("of the session", SESSION_FAULTS),
        ("of a response", RESPONSES),
        ("of a caller's turn", TURNS),
    ):
        _print_names(title, names)
    ctx.exit()


def _print_names(title: str, names: Iterable[str]) -> None:
    click.echo(f"{title}:")
    click.echo(click.wrap_text("  ".join(sorted(names)), 100, "  ", "  "))


@twin.command(short_help="Run an AI that needs no key.", epilog=EXIT_CODES_HERE)
@click.option("--port", type=click.IntRange(0, 65535), default=AI_PORT, show_default=True, help="On loopback; 0: any free port.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[@N]", help="A fault; @N: strikes the Nth response or turn (1).")
@click.option("--faults", "listed", is_flag=True, is_eager=True, expose_value=False, callback=_list_ai_faults, help="List them.")
@click.option(
    "--speed",
    type=click.FloatRange(0.5, 1000),
    default=10.0,
    show_default=True,
    help="Speed of its audio, in multiples of real time.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random sizes of its pieces of audio.")
@click.option("--thinking", type=click.FloatRange(0, 60), default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--hang-up-after", type=click.IntRange(1), help="The response in which the agent says goodbye and hangs up.")
@click.option("--tool", "tools", multiple=True, metavar="NAME[@N][={...}]", help="A tool that the Nth response (2) calls.")
@json_option
def ai(
    port: int,
    faults: tuple[str, ...],
    speed: float,
    seed: int,
    thinking: float,
    hang_up_after: int | None,
    tools: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve an AI with OpenAI Realtime's protocol and recorded voices, until Ctrl-C.

    It hears the caller's turns, answers each, can be interrupted, and needs no key. Each session is reported when it ends;
    with --json as one document a line.

    \b
    An agent that uses it, in submilli.toml:
      [agents.default]
      provider = "openai"
      base_url = "ws://127.0.0.1:8090/v1/realtime"
    \b
    Examples:
      gateway.py twin ai
      gateway.py twin ai --fault stall@2         the second response stops
      gateway.py twin ai --fault refuse_429      no session opens
      gateway.py twin ai --thinking 1.5 --hang-up-after 3
      gateway.py twin ai --tool 'lookup_order@2={"number":"7"}'
    """
    import gevent

    from gw.twin.ai.script import conversation
    from gw.twin.ai.server import AiTwin

    script = conversation(speed=speed, seed=seed, thinking_s=thinking, hang_up_after=hang_up_after)
    for fault in faults:
        script = _with_ai_fault(script, fault)
    for tool in tools:
        script = _with_tool(script, tool)
    server = AiTwin(script, port=port, needs_key=False)
    try:
        server.start()
    except OSError as error:
        raise Failure(f"--port {port} cannot be used: {error.strerror or error}; choose another port, or 0") from None
    try:
        with interruptible():
            click.echo(json.dumps({"url": server.url}) if as_json else f"An AI without a key: base_url = {server.url!r}")
            reported = _AiReports(server, as_json)
            while True:
                gevent.sleep(_LOOK_S)
                reported.look()
    except Interrupted:
        server.stop()
        reported.look()


def _with_ai_fault(script: AiScript, text: str) -> AiScript:
    name, _, number = text.partition("@")
    if number and not (number.isdecimal() and int(number)):
        raise click.UsageError(f"--fault {text}: expected NAME or NAME@N, for example stall@2")
    try:
        return script.with_fault(name, int(number or 1))
    except KeyError:
        raise click.UsageError(f"--fault {name}: there is no such fault; list them with: gateway.py twin ai --faults") from None


def _with_tool(script: AiScript, text: str) -> AiScript:
    from gw.twin.ai.faults import Call

    called, _, arguments = text.partition("=")
    name, _, number = called.partition("@")
    try:
        fits = isinstance(json.loads(arguments or "{}"), dict) and bool(name) and int(number or FIRST_ANSWER) > 0
    except ValueError:
        fits = False
    if not fits:
        raise click.UsageError(
            f'--tool {text}: expected NAME, NAME@N or NAME@N={{...}}, for example \'lookup@2={{"number":"7"}}\''
        )
    calls = dict(script.calls)
    response = int(number or FIRST_ANSWER)
    calls[response] = (*calls.get(response, ()), Call(name, arguments or "{}"))
    return replace(script, calls=calls)


class _AiReports:
    """Prints each session of the AI once, after its end."""

    def __init__(self, server: AiTwin, as_json: bool) -> None:
        self._server = server
        self._json = as_json
        self._refused = 0

    def look(self) -> None:
        """Print the sessions that ended, and drop them."""
        for ledger in [one for one in self._server.sessions if one.is_over]:
            self._server.sessions.remove(ledger)
            self._print(ledger)
        for status in self._server.refusals[self._refused :]:
            self._refused += 1
            click.echo(json.dumps({"refused": status}) if self._json else f"a session was refused with {status}")

    def _print(self, ledger: AiLedger) -> None:
        outputs = {output["call_id"]: output["output"] for output in ledger.tool_outputs}
        shown = {
            "session": ledger.index + 1,
            "seconds": round((ledger.closed_s or ledger.connected_s) - ledger.connected_s, 1),
            "responses": len(ledger.responses),
            "turns": len(ledger.turns_ms),
            "tools": [{"tool": call.name, "output": outputs.get(call.call_id)} for call in ledger.calls],
            "truncated": sum(one.accepted for one in ledger.truncates),
            "errors": [error.code or error.message for error in ledger.errors],
            "violations": ledger.violations,
            "closed_by": ledger.closed_by,
            "close_code": ledger.close_code,
        }
        if self._json:
            click.echo(json.dumps(shown))
            return
        click.echo(
            "session {session}: {seconds} s, {responses} responses, {turns} turns of the caller, {truncated} interrupted; "
            "closed by {closed_by} ({close_code})".format(**shown)
        )
        for call in ledger.calls:
            click.echo(f"  tool {call.name}: {outputs.get(call.call_id, 'no output')}")
        for text in (*(error.message for error in ledger.errors), *ledger.violations):
            click.echo(f"  {text}")


# -- the caller ---------------------------------------------------------------------------------------------------------


def _list_call_names(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from gw.twin import speech
    from gw.twin.twilio.faults import HOOKS, PRELUDES
    from gw.twin.twilio.steps import NOTATION

    click.echo("steps:")
    for form, meaning in NOTATION.items():
        click.echo(f"  {form:22} {meaning}")
    click.echo("phrases:")
    for name, words in speech.WORDS.items():
        click.echo(f"  {name:22} {words}")
    _print_names("--fault, at the stream's start", PRELUDES)
    _print_names("--fault, in the stream", HOOKS)
    ctx.exit()


@twin.command(short_help="Call a gateway with recorded speech.", epilog=EXIT_CODES)
@click.argument("steps", nargs=-1, metavar="[STEP]...")
@click.option("--url", help="The gateway's address. Default: server.listen of the configuration.")
@click.option("--public-url", help="Its URL as configured at Twilio, for signatures. Default: server.public_url, or --url.")
@click.option("--account-sid", help="Sign as this account, with TWILIO_AUTH_TOKEN. Default: the configured one.")
@click.option("--agent", default="", help="The agent, as in /twilio/voice?agent=NAME.")
@click.option("--from", "from_number", default="+15005550006", show_default=True, help="The caller's number.")
@click.option("--to", "to_number", default="+15005550001", show_default=True, help="The number that is called, for routes.")
@click.option("--fault", help="Break the media stream in this way; the gateway has to end the call.")
@click.option(
    "--list", "listed", is_flag=True, is_eager=True, expose_value=False, callback=_list_call_names, help="List all names."
)
@click.option("--calls", type=click.IntRange(1, 200), default=1, show_default=True, help="Concurrent calls.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=120, show_default=True, help="Longest call.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for what each caller hears, call-N.wav.")
@click.option("--rest-port", type=click.IntRange(0, 65535), default=0, help="Serve Twilio's REST API here, for twilio.api_base.")
@config_option
@json_option
@pass_settings
def call(
    settings: Settings,
    steps: tuple[str, ...],
    url: str | None,
    public_url: str | None,
    account_sid: str | None,
    agent: str,
    from_number: str,
    to_number: str,
    fault: str | None,
    calls: int,
    seconds: float,
    out: Path | None,
    rest_port: int,
    as_json: bool,
) -> None:
    """Place calls with recorded speech, as Twilio would, and report on what each caller heard.

    STEPs are acts of the caller and faults of the network, one after the other: `gateway.py twin call --list` explains them.
    Without any, the caller says three sentences and hangs up. Exit code 1 if a caller heard nothing, or Twilio would have
    logged an error; with --fault only if the call could not be placed.

    \b
    The configured gateway:              gateway.py twin call
    Another one:                         gateway.py twin call --url http://127.0.0.1:8081
    An interruption, then a key:         gateway.py twin call interrupt=weasels press=1 hang_up
    Your own voice:                      gateway.py twin call say=question.wav hang_up --out heard
    A second without network:            gateway.py twin call say=weasels lose_frames=1 say=monkeys hang_up
    A media socket that breaks:          gateway.py twin call --fault reset
    Twenty callers, for a script:        gateway.py twin call --calls 20 --json
    """
    from gw.twin.sound import write_wav
    from gw.twin.twilio.account import ACCOUNT_SID, TwilioTwin
    from gw.twin.twilio.call_report import report
    from gw.twin.twilio.faults import HOOKS, PRELUDES, with_fault
    from gw.twin.twilio.stream import CallPlan

    if fault is not None and fault not in {*HOOKS, *PRELUDES}:
        raise click.UsageError(f"--fault {fault}: there is no such fault; list them with: gateway.py twin call --list")
    plan = CallPlan(
        hang_up=False,
        max_s=seconds,
        agent=agent,
        from_number=from_number,
        to_number=to_number,
        steps=_steps(steps or _DEFAULT_STEPS),
    )
    plan = plan if fault is None else with_fault(plan, fault)
    own = settings.config if url is None or account_sid is None else None
    token = ""
    if account_sid is not None:
        token = os.environ.get("TWILIO_AUTH_TOKEN", "")
        if not token:
            raise Failure("--account-sid needs the account's token; set TWILIO_AUTH_TOKEN in the environment")
    elif own is not None and own.signed:
        account_sid, token = own.twilio.account_sid, own.secrets.twilio_auth_token
    if url is None:
        assert own is not None
        url, public_url = f"http://{own.server.listen}", public_url or own.server.public_url or None
    try:
        account = TwilioTwin(
            url, account_sid=account_sid or ACCOUNT_SID, auth_token=token, public_url=public_url, rest_port=rest_port
        )
        account.start()
    except OSError as error:
        raise Failure(f"--rest-port {rest_port} cannot be used: {error.strerror or error}; choose another port, or 0") from None
    placed = run_calls(account, plan, calls, url)
    reports = [report(one) for one in placed]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(placed, 1):
            write_wav(out / f"call-{number}.wav", one.heard_with_gaps)
    print_reports(reports, as_json=as_json)
    failed = (
        [one.error for one in placed if one.error] if fault is not None else [text for one in reports for text in one.problems]
    )
    if failed:
        raise click.exceptions.Exit(1)


def run_calls(account: TwilioTwin, plan: CallPlan, calls: int, url: str) -> list[TwinCall]:
    """Place calls by a running stand-in, wait for their ends, and stop it.

    Raises: Failure after an interrupt, Unreachable without a gateway at `url`.
    """
    try:
        with interruptible():
            placed = [account.place(plan) for _ in range(calls)]
            account.wait(plan.max_s + _SETTLE_S)
    except Interrupted:
        raise Failure("interrupted; all calls it placed have ended") from None
    finally:
        account.stop()
    if all(one.voice is not None and one.voice.status == 0 for one in placed):
        raise Unreachable(f"no gateway answers on {url}; start one with: gateway.py serve", is_absent=True)
    return placed


def _steps(texts: Sequence[str]) -> tuple[Step, ...]:
    from gw.twin.twilio.steps import parse_step

    try:
        return tuple(parse_step(text, phrase) for text in texts)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def phrase(name: str) -> bytes:
    """Return the audio of a recording by name, or of a WAV file. Raises ValueError with the remedy."""
    from gw.twin import speech
    from gw.twin.sound import read_wav

    if name in speech.WORDS:
        return speech.load(name)
    if not name.lower().endswith(".wav"):
        raise ValueError(
            f"{name!r} is neither a recording nor a .wav file; list the recordings with: gateway.py twin call --list"
        )
    try:
        return read_wav(name)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from None
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{name} is not a WAV file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{error}; convert it with: sox {name} -r 8000 -c 1 -b 16 converted.wav") from None


def print_reports(reports: Sequence[CallReport], *, as_json: bool) -> None:
    """Print reports of calls as a document, or as a few lines each."""
    from gw.terminal import dash, print_json

    if as_json:
        print_json(list(reports))
        return
    for one in reports:
        code = "" if one.close_code is None else f" with {one.close_code} {one.close_reason}".rstrip()
        click.echo(
            f"{one.call_sid}: {one.status}, {one.seconds} s, ended by {one.closed_by or 'nothing'}{code}; heard {one.heard_s} s, "
            f"the first after {dash(one.first_audio_ms)} ms, gaps {one.gaps_ms} ms, "
            f"{counted(one.clears, 'interruption', 'interruptions')}"
        )
        for turn in one.turns:
            answer = "no answer" if turn.latency_ms is None else f"answered after {turn.latency_ms} ms"
            click.echo(f"  {turn.caller_stops_ms / 1000:7.2f} s  the caller stops: {answer}")
        for text in one.spoken:
            click.echo(f"  Twilio said: {text}")
        for text in one.problems:
            click.echo(f"  problem: {text}")
