"""`<Dial>`: the callee's side of a transfer, by a plan, with the whisper before the bridge.

The callee's phone rings, is answered or not, and runs the whisper's TwiML on a separate leg. Its end without a hang-up is the
bridge. Each dial is a `Dialled` of the account, the truth about how often a number rang.

Source: Twilio's documentation of `<Dial>`, `<Number>`, `<Sip>`, `<Gather>`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import gevent

from gw.twin.twilio import fields as twilio_fields
from gw.twin.twilio import twiml
from gw.twin.twilio.webhooks import WebhookSender

#: Interval between looks at whether the caller is still there.
_LOOK_S: Final = 0.01
#: Twilio's default timeouts of `<Dial>` and `<Gather>`.
_RING_S: Final = 30.0
_GATHER_S: Final = 5.0
_MAX_DOCUMENTS: Final = 10

Ends = Literal["answers", "busy", "no-answer", "failed"]


@dataclass(frozen=True, kw_only=True)
class Callee:
    """A dialled party. `keys`: one for each `<Gather>`; empty: it hangs up there; " ": it presses none."""

    ends: Ends = "answers"
    after_s: float = 0.0  # until it answers, or is found busy
    keys: str = "1"
    listens_s: float = 0.0  # to a whisper, before each key
    talks_s: float = 0.0  # from the bridge until it hangs up


@dataclass(slots=True)
class Dialled:
    """One dial. `status`: Twilio's DialCallStatus; empty while it lasts."""

    to: str
    parent_sid: str
    at_s: float  # monotonic
    call_sid: str = field(default_factory=lambda: f"CA{uuid.uuid4().hex}")
    spoken: list[str] = field(default_factory=list)  # to the callee
    problems: list[str] = field(default_factory=list)
    status: str = ""
    bridged: bool = False
    ended_s: float = 0.0
    talked_s: float = 0.0

    def fields(self) -> dict[str, str]:
        """Return the fields of the webhook after the dial."""
        return {
            "DialCallSid": self.call_sid,
            "DialCallStatus": self.status,
            "DialBridged": "true" if self.bridged else "false",
            **({"DialCallDuration": str(round(self.talked_s))} if self.status == "completed" else {}),
        }


class Dialler:
    """Runs one dial of a call."""

    def __init__(self, account_sid: str, caller: str, webhooks: WebhookSender, base: str, has_left: Callable[[], bool]) -> None:
        """`base`: the document's URL. `has_left`: whether the caller's call was hung up or redirected."""
        self._account_sid = account_sid
        self._caller = caller
        self._webhooks = webhooks
        self._base = base
        self._has_left = has_left

    def run(self, verb: twiml.Verb, callee: Callee, dialled: Dialled) -> None:
        """Ring, whisper, bridge. Sets the outcome in `dialled`."""
        ring_s = float(verb.attributes.get("timeout", _RING_S))
        answers = callee.ends == "answers" and callee.after_s <= ring_s
        if not self._wait(callee.after_s if answers or callee.ends in ("busy", "failed") else ring_s):
            dialled.status = "canceled"
        elif not answers:
            dialled.status = "no-answer" if callee.ends == "answers" else callee.ends
        else:
            url = verb.nouns[0].attributes.get("url", "") if verb.nouns else ""
            dialled.bridged = not url or self._whisper(url, callee, dialled)
            began_s = time.monotonic()
            if dialled.bridged:
                self._wait(callee.talks_s)
                dialled.talked_s = time.monotonic() - began_s
            dialled.status = "completed"
        dialled.ended_s = time.monotonic()

    def _wait(self, seconds: float) -> bool:
        """Wait, as long as the caller is there. Returns whether the caller still is."""
        until_s = time.monotonic() + seconds
        while not self._has_left() and (left_s := until_s - time.monotonic()) > 0:
            gevent.sleep(min(left_s, _LOOK_S))
        return not self._has_left()

    def _whisper(self, url: str, callee: Callee, dialled: Dialled) -> bool:
        """Run TwiML on the callee's leg. Returns whether it ended without a hang-up: the legs are bridged then."""
        keys = iter(callee.keys)
        more: dict[str, str] = {}
        following: str | None = self._webhooks.absolute(url, self._base)
        for _ in range(_MAX_DOCUMENTS):
            assert following is not None
            form = twilio_fields.call_fields(self._account_sid, dialled.call_sid, self._caller, dialled.to, "in-progress")
            form |= {"Direction": "outbound-dial", "ParentCallSid": dialled.parent_sid, **more}
            base = following
            answer = self._webhooks.post(base, form)
            if not answer.is_good:
                dialled.problems.append(f"11200 {base} answered {answer.status}")
                return False
            document = twiml.parse(answer.body, answer.content_type)
            dialled.problems += [f"{code} {detail}" for code, detail in document.problems]
            following, more = None, {}
            for verb in document.verbs:
                if isinstance(verb, twiml.Stream) or verb.name == "Hangup":
                    return False
                if verb.text:
                    dialled.spoken.append(verb.text)
                if verb.name == "Gather":
                    key = next(keys, "")
                    if not self._wait(callee.listens_s) or not key:
                        return False
                    if key == " ":
                        self._wait(float(verb.attributes.get("timeout", _GATHER_S)))
                        continue
                    following, more = self._webhooks.absolute(verb.attributes.get("action", base), base), {"Digits": key}
                    break
            if following is None:
                return not self._has_left()
        return False
