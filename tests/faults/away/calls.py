"""Calls that leave their stream and return while control and workers are killed: `python tests/faults/away/calls.py --calls 500`.

Each call's agent transfers its caller, with a whisper or without, or sends digits, by a plan that the seed determines; callees
decline, are busy, do not answer or accept. The caller answers the agent's words, and hangs up after the last. Every few seconds
SIGKILL ends control or a worker, mostly while a call is away. Twilio's and the caller's twin count what happened.

Exit code 1: a law of `laws.py` was broken. The same `--seed` gives the same calls and kills, at about the same times.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent
from gevent.event import Event
from gevent.pool import Pool

from gw.bench.gateway_process import GatewayProcess
from gw.call.leave import SEND_DIGITS, TRANSFER
from gw.control.admin.client import AdminClient
from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.polling import wait_until
from gw.twin.sound import RATE_HZ
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.dial import Dialled
from tests.faults.away.laws import CallLine, Dial, Killed, Record, Span, Takeover, Wish, judge
from tests.faults.away.plan import NUMBERS, PARTIES, RING_S, CallPlan, Kill, Leaving, draw_call, draw_kills
from tests.faults.processes import Processes
from tests.program import program
from tests.timing import scaled

AUTH_TOKEN: Final = "an auth token of the bench"
WORKERS: Final = 2
#: Longest call, and the patience of a caller without a word.
MAX_CALL_S: Final = 180.0
PATIENCE_S: Final = 20.0
#: The caller answers, or hangs up, after this silence.
QUIET_S: Final = 0.6
LOOK_S: Final = 0.05
#: Longest wait for a call that is away, before a kill comes anyway.
AWAY_S: Final = 4.0
SETTLE_S: Final = 60.0
#: Words heard this long before another session speaks must be known to it: the mark, its echo, the event, the commit.
KNOWN_S: Final = 1.0
_WORD: Final = speech.load("monkeys")[2400:8800]
_WORD_S: Final = len(_WORD) / RATE_HZ
_ANSWER: Final = speech.load("thanks")[: RATE_HZ * 6 // 5]
_WORDS: Final = 60


class Agent:
    """The AI's decisions about one call, in whichever session."""

    def __init__(self, plan: CallPlan) -> None:
        self.plan = plan
        self.left = list(plan.acts)
        self.wished: list[tuple[str, Leaving, float]] = []  # the call's id in its session, and when

    def act(self, ledger: AiLedger) -> tuple[Call, ...]:
        """Return the tool calls of a response that was spoken to its end."""
        leaving = self.left.pop(0) if self.left else None
        if leaving is None:
            return ()
        self.wished.append((f"{ledger.index}/{len(ledger.calls)}", leaving, time.monotonic()))
        if leaving.party:
            return (Call(TRANSFER, json.dumps({"target": leaving.party, "summary": "The caller asks for help."})),)
        return (Call(SEND_DIGITS, json.dumps({"digits": leaving.digits})),)


class _Acts(Mapping[int, tuple[Call, ...]]):
    """The tool calls of one session's responses, decided as each one ends."""

    def __init__(self, bench: "Bench", index: int) -> None:
        self._bench = bench
        self._index = index

    def __getitem__(self, number: int) -> tuple[Call, ...]:
        ledger = next(one for one in self._bench.ai.sessions if one.index == self._index)
        return self._bench.agents[_caller_of(ledger)].act(ledger)

    def __contains__(self, number: object) -> bool:
        return False  # each response has words

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Bench:
    """One run: a gateway between the twins, its calls and its kills."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.seed = seed
        self.folder = folder
        self.record = Record()
        self.agents: dict[str, Agent] = {}  # by the caller's number
        self.ai = AiTwin(self._script)
        self.began_s = time.monotonic()
        self._said: dict[str, list[Span]] = defaultdict(list)  # by caller
        self._ended: dict[str, tuple[str, float]] = {}  # how and when, by caller
        self._over = Event()

    def _script(self, index: int, path: str) -> AiScript:
        """Return a session's script: its words name the session, so that they are found in later ones."""
        return AiScript(
            answers=(_ANSWER,),
            calls=_Acts(self, index),
            agent_words=tuple(f"Agent {index}-{n}." for n in range(_WORDS)),
            caller_words=tuple(f"Caller {index}-{n}." for n in range(_WORDS)),
            speed=20.0,
        )

    def run(self, calls: int, at_once: int, kills: list[Kill]) -> Record:
        """Place the calls, kill processes meanwhile, and wait for what is left."""
        with self.ai:
            self.gateway = GatewayProcess(program(), self.folder, _settings(self.ai.url))
            self._admin = AdminClient(self.gateway.admin_socket, timeout_s=scaled(10.0))
            self._processes = Processes(self._admin, WORKERS)
            with TwilioTwin(self.gateway.url, auth_token=AUTH_TOKEN) as self.twilio:
                self.twilio.callees |= {NUMBERS[name]: callee for name, (callee, _) in PARTIES.items()}
                self.gateway.start(
                    account_sid=self.twilio.account_sid, auth_token=AUTH_TOKEN, api_base=self.twilio.rest.url, ai_url=self.ai.url
                )
                try:
                    assert wait_until(self._processes.is_whole, scaled(20.0)), "the gateway did not become whole"
                    self.began_s = time.monotonic()
                    killing = gevent.spawn(self._kill, kills)
                    pool = Pool(at_once)
                    for number in range(calls):
                        pool.spawn(self._call, draw_call(self.seed, number))
                        gevent.sleep(0.05)
                    pool.join(raise_error=True)
                    self._over.set()
                    killing.get()
                    if not wait_until(self._processes.is_settled, scaled(SETTLE_S), 0.5):
                        self.record.errors.append("the gateway did not come to rest")
                    self._write()
                finally:
                    self.gateway.stop()
        return self.record

    # -- one caller -------------------------------------------------------------------------------------------------------

    def _call(self, plan: CallPlan) -> None:
        """Place a call and be its caller."""
        agent = self.agents[plan.caller] = Agent(plan)
        call = self.twilio.place_call(hang_up=False, max_s=MAX_CALL_S, from_number=plan.caller, agent=plan.agent)
        heard_s, answered_s = time.monotonic(), 0.0
        while not call.is_over:
            gevent.sleep(LOOK_S)
            now_s = time.monotonic()
            if self._hears(call, now_s):
                heard_s = now_s
            if now_s - heard_s > PATIENCE_S:
                self._ended[plan.caller] = "gave_up", now_s
                call.hang_up()
                break
            if now_s - heard_s < QUIET_S or not self._may_speak(call, agent, answered_s, now_s):
                continue
            if not agent.left:
                self._ended[plan.caller] = "hung_up", now_s
                call.hang_up()
                break
            call.say(_WORD)
            answered_s = heard_s = now_s + _WORD_S
            self._said[plan.caller].append((now_s, answered_s))
        call.wait(30.0)
        self._ended.setdefault(plan.caller, ("", time.monotonic()))

    def _hears(self, call: TwinCall, now_s: float) -> bool:
        """Return whether a caller hears the agent, ringing or tones now."""
        rings = any(one.parent_sid == call.call_sid and not one.status for one in self.twilio.dials)
        return rings or call.player.is_playing(now_s) or (bool(call.tones_s) and now_s - call.tones_s[-1] < QUIET_S)

    def _may_speak(self, call: TwinCall, agent: Agent, answered_s: float, now_s: float) -> bool:
        """Return whether it is the caller's turn: the agent spoke to the end in this stream, and does not leave it."""
        websocket, arrivals = call._websocket, call.player.arrivals
        if websocket is None or not websocket.is_open or not arrivals or not call.streams_s:
            return False
        if arrivals[-1].at_s <= max(call.streams_s[-1], answered_s):
            return False
        responses = [one for ledger in self._sessions(agent.plan.caller) for one in ledger.responses]
        last = max(responses, key=lambda one: one.created_s, default=None)
        if last is None or last.is_active or now_s < last.created_s + len(last.audio) / RATE_HZ + QUIET_S:
            return False
        wished_s = agent.wished[-1][2] if agent.wished else 0.0
        return wished_s < call.streams_s[-1] or last.created_s > wished_s

    # -- kills ------------------------------------------------------------------------------------------------------------

    def _kill(self, kills: list[Kill]) -> None:
        for kill in kills:
            if self._over.wait(kill.pause_s):
                return
            if not wait_until(self._processes.is_whole, scaled(20.0), 0.05):
                continue
            if kill.when_away:
                wait_until(self._is_away, AWAY_S)
            if pids := self._processes.pids(kill.role):
                os.kill(pids[int(kill.pick * len(pids))], signal.SIGKILL)
                at_s = time.monotonic() - self.began_s
                wait_until(lambda old=set(pids): bool(set(self._processes.pids(kill.role)) - old), scaled(20.0), 0.05)  # noqa: B023
                waited_s = sum(map(_waited_s, set(self._processes.pids(kill.role)) - set(pids)))
                self.record.kills.append(Killed(at_s, kill.role, waited_s, time.monotonic() - self.began_s - at_s))

    def _is_away(self) -> bool:
        """Return whether Twilio dials for a call, or was just asked to."""
        now_s = time.monotonic()
        return any(not one.status for one in self.twilio.dials) or any(
            agent.wished and now_s - agent.wished[-1][2] < 0.5 for agent in self.agents.values()
        )

    # -- afterwards -------------------------------------------------------------------------------------------------------

    def _sessions(self, caller: str) -> list[AiLedger]:
        """Return the AI's sessions of a call that were used, in sequence."""
        return [one for one in self.ai.sessions if one.creates and _caller_of(one) == caller]

    def _write(self) -> None:
        by_caller: dict[str, list[AiLedger]] = defaultdict(list)
        for ledger in self.ai.sessions:
            if ledger.creates:
                by_caller[_caller_of(ledger)].append(ledger)
        for call in self.twilio.calls.values():
            self.record.calls.append(self._line(call, by_caller[call.plan.from_number]))

    def _line(self, call: TwinCall, sessions: list[AiLedger]) -> CallLine:
        caller, row = call.plan.from_number, self._admin.request("call", call_sid=call.call_sid) or {}
        dials = [one for one in self.twilio.dials if one.parent_sid == call.call_sid]
        died_s = [one.at_s + self.began_s for one in self.record.kills if one.role == "worker"]
        problems = [
            problem
            for one in dials
            for problem in one.problems
            if not ("answered 0" in problem and any(one.at_s <= at_s <= one.ended_s for at_s in died_s))
        ]
        how, end_s = self._ended[caller]
        outcomes = [_outcome_of(one) for one in dials]
        if not how:
            how = "connected" if outcomes and outcomes[-1] == "completed" else f"ended by {call.closed_by or 'Twilio'}"
        filled = [(at_s, at_s + len(audio) / RATE_HZ) for at_s, audio in call.played]
        filled += [(one.at_s, one.ended_s or end_s) for one in dials]
        filled += [(at_s, at_s + 0.5) for at_s in call.tones_s] + self._said[caller]
        if how == "connected":
            end_s = dials[-1].ended_s
        spoken = [f"it heard {text!r}" for text in call.spoken]
        notes = [f"{one.code} {one.detail[:120]}" for one in call.notices]
        return CallLine(
            number=call.number,
            call_sid=call.call_sid,
            span=self._span(call.streams_s[0] if call.streams_s else call.placed_s, end_s),
            streams_s=[at_s - self.began_s for at_s in call.streams_s],
            ended=how,
            filled=[self._span(*one) for one in filled],
            wishes=[Wish(leaving, _outputs(sessions, name)) for name, leaving, _ in self.agents[caller].wished],
            dials=[Dial(one.to, outcome) for one, outcome in zip(dials, outcomes, strict=True)],
            tones=call.tones,
            recorded=sum(start.recorded for start in self.twilio.rest.starts.get(call.call_sid, [])),
            takeovers=_takeovers(sessions),
            complaints=[
                *([call.error] if call.error else []),
                *(f"{one.code} {one.detail}" for one in call.warnings),
                *problems,
                *(violation for ledger in sessions for violation in ledger.violations),
            ],
            is_open=row.get("ended_at") is None,
            request_failed=any(one.code == 11200 and "answered 0" in one.detail for one in call.notices[-1:]),
            problems=[f"reason {row.get('reason')}, {len(call.streams_s)} streams", *spoken, *notes],
        )

    def _span(self, from_s: float, to_s: float) -> Span:
        return from_s - self.began_s, to_s - self.began_s


def _waited_s(pid: int) -> float:
    """Return the time in which a process could run and the machine did not run it. Source: Linux, sched-stats.rst."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0  # it has ended


def _outcome_of(dialled: Dialled) -> str:
    """Return a dial's outcome, as Twilio's twin has it."""
    if dialled.bridged:
        return "completed"
    return "declined" if dialled.status == "completed" else dialled.status


def _outputs(sessions: list[AiLedger], name: str) -> list[str]:
    """Return the outputs of a tool call in all sessions. `name`: index of its session, and place among its calls."""
    index, _, place = name.partition("/")
    made = next(one for one in sessions if one.index == int(index))
    if len(made.calls) <= int(place):
        return []
    call_id = made.calls[int(place)].call_id
    outputs = [one["output"] for ledger in sessions for one in ledger.tool_outputs if one["call_id"] == call_id]
    return [str(json.loads(output).get("status", output)) for output in outputs]


def _takeovers(sessions: list[AiLedger]) -> list[Takeover]:
    """Return each change of the speaking session: the words heard before, and those it was given or has said."""
    spoken = sorted((one.created_s, n) for n, ledger in enumerate(sessions) for one in ledger.responses)
    found = []
    for (_, former), (at_s, n) in pairwise(spoken):
        if n != former:
            given = [one.text for one in sessions[n].items if one.role in ("assistant", "user") and one.at_s <= at_s]
            found.append(Takeover(_heard(sessions, at_s), [*given, *_heard(sessions[n : n + 1], at_s)]))
    return found


def _heard(sessions: list[AiLedger], until_s: float) -> list[str]:
    """Return the words of both sides that were heard to their end in these sessions, in sequence."""
    said: list[tuple[float, str]] = []
    for ledger in sessions:
        known_s = min(until_s, ledger.closed_s or until_s) - KNOWN_S
        for one in ledger.responses:
            is_whole = one.status == "completed" and one.deltas and one.truncated_ms is None
            if is_whole and one.deltas[0].at_s + len(one.audio) / RATE_HZ < known_s:
                said.append((one.created_s, one.words))
        turns = [debt.at_s for debt in ledger.debts if debt.cause == "speech"]
        said += [(at_s, f"Caller {ledger.index}-{n}.") for n, at_s in enumerate(turns) if at_s < known_s]
    return [words for _, words in sorted(said)]


def _caller_of(ledger: AiLedger) -> str:
    """Return the caller's number, which the instructions name, so that each session of a call is found."""
    return str(ledger.updates[0]["instructions"]).rpartition(" ")[2] if ledger.updates else ""


def _settings(ai_url: str) -> dict[str, str]:
    agents = {}
    targets = ", ".join(f'{name} = "{number}"' for name, number in NUMBERS.items())
    for name, ring_s in RING_S.items():
        agents[f"agents.{name}"] = (
            f'provider = "openai"\nbase_url = "{ai_url}"\ntools = ["hang_up", "transfer", "send_digits"]\n'
            'instructions = "The caller is {{caller}}"\n'
        )
        whisper = "false" if name == "cold" else "true"
        agents[f"agents.{name}.transfer"] = f"targets = {{ {targets} }}\nring_s = {ring_s}\nwhisper = {whisper}\n"
    return {"server": f"workers = {WORKERS}\n", "recording": "enabled = true\n", **agents}


def run(folder: Path, *, calls: int, at_once: int, seed: str, kills: int) -> Record:
    """Run the bench in `folder`. Returns the record."""
    return Bench(folder, seed).run(calls, at_once, draw_kills(seed, kills))


def table(record: Record) -> str:
    """Return the counts and the verdict as text."""
    ends = Counter(call.ended for call in record.calls)
    outcomes = Counter(dial.outcome for call in record.calls for dial in call.dials)
    kills = Counter(one.role for one in record.kills)
    done = sum(len({dial.to for dial in call.dials}) for call in record.calls) + sum(
        wish.leaving.digits in call.tones for call in record.calls for wish in call.wishes if wish.leaving.digits
    )
    wishes = sum(len(call.wishes) for call in record.calls)
    lines = [
        f"calls: {len(record.calls)} ({', '.join(f'{count} {name}' for name, count in ends.most_common())})",
        f"kills: {', '.join(f'{count} of {name}' for name, count in sorted(kills.items())) or 'none'},"
        f" away for at most {max((one.away_s for one in record.kills), default=0.0):.1f} s",
        f"leaves: {wishes}, of them {wishes - done} not carried out;"
        f" dials: {', '.join(f'{count} {name}' for name, count in outcomes.most_common())}",
        f"sessions that took over a conversation: {sum(len(call.takeovers) for call in record.calls)}",
    ]
    for name, broken in judge(record).items():
        lines.append(f"{name}: {'holds' if not broken else f'{len(broken)} violations'}")
        lines += [f"  {text}" for text in broken[:20]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=500, help="calls in all")
    parser.add_argument("--at-once", type=int, default=20, help="calls at a time")
    parser.add_argument("--kills", type=int, default=1000, help="at most so many, until the last call")
    parser.add_argument("--seed", default="", help="any word; empty: a new one")
    parser.add_argument("--out", type=Path, default=None, help="folder of the gateway's files; default: a temporary one")
    given = parser.parse_args()
    seed = given.seed or f"{random.SystemRandom().randrange(1 << 32):08x}"
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="gw-away-") as temporary:
        folder = given.out or Path(temporary)
        record = run(folder, calls=given.calls, at_once=given.at_once, seed=seed, kills=given.kills)
    print(table(record))
    return 1 if any(judge(record).values()) else 0


if __name__ == "__main__":
    sys.exit(main())
