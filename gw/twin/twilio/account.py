"""Account of the Twilio twin: places calls, and connects them with the REST API.

All requests go to the gateway's real address under its public name. Each call has a greenlet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from gevent.pool import Pool

from gw.twin.sound import tag
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.dial import Callee, Dialled
from gw.twin.twilio.rest.server import RestTwin
from gw.twin.twilio.stream import CallPlan
from gw.twin.twilio.webhooks import WebhookSender

ACCOUNT_SID: Final = "AC" + "0" * 31 + "1"
_STOP_S: Final = 5.0


class TwilioTwin:
    """A Twilio account. Call `start` and `stop`, or use it as a context manager."""

    def __init__(
        self,
        gateway_url: str,
        *,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = "",
        public_url: str | None = None,
        voice_path: str = "/twilio/voice",
        status_path: str | None = "/twilio/status",
        rest_host: str = "127.0.0.1",
        rest_port: int = 0,
        max_calls: int = 2000,
        beside: TwilioTwin | None = None,
    ) -> None:
        """`gateway_url`: the gateway's real address; `public_url`: its public name. Without a token nothing is signed.

        `beside`: another account, whose server of the REST API this one shares.
        """
        self.account_sid = account_sid
        self.webhooks = WebhookSender(gateway_url, public_url or gateway_url, auth_token)
        self._voice_url = self.webhooks.absolute(voice_path)
        self._status_url = self.webhooks.absolute(status_path) if status_path is not None else None
        self._pool = Pool(max_calls)
        self.calls: dict[str, TwinCall] = {}
        self.rest: RestTwin = RestTwin(
            account_sid, auth_token, self.calls, self.webhooks, rest_host, rest_port, beside.rest if beside else None
        )
        self.rest.place = self._place_outbound
        self.callee = CallPlan(hang_up=False)  # plan of a call that the gateway places
        self.callees: dict[str, Callee] = {}  # parties that TwiML dials, by number
        self.dials: list[Dialled] = []  # by TwiML, in sequence
        #: Plan of such a call by the number, and by how often it was dialled before.
        self.callee_of: Callable[[str, int], CallPlan] = lambda number, before: self.callee
        self.placed: dict[str, list[str]] = {}  # the truth: SIDs of all calls that the gateway placed, by number

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> TwilioTwin:
        """Open the REST API. Raises OSError if its address is taken."""
        self.rest.start()
        return self

    def stop(self) -> None:
        """Hang up every call, then close the API. Idempotent."""
        for call in self.calls.values():
            call.hang_up("twin")
        self._pool.join(timeout=_STOP_S)
        self._pool.kill(timeout=1)
        self.rest.stop()

    def __enter__(self) -> TwilioTwin:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- rotation of the auth token ---------------------------------------------------------------------------------

    def add_secondary_token(self, auth_token: str) -> None:
        """Create a secondary auth token. It is valid for the REST API; webhooks are signed with the primary one."""
        self.rest.auth_tokens.append(auth_token)

    def promote_secondary_token(self) -> None:
        """Replace the primary auth token by the secondary one. Source: Twilio docs, "REST API: Auth Token"."""
        del self.rest.auth_tokens[0]
        self.webhooks.auth_token = self.rest.auth_tokens[0]

    # -- calls ------------------------------------------------------------------------------------------------------

    def place_call(self, speech: Sequence[bytes] = (), *, tagged: bool = True, **options: Any) -> TwinCall:
        """Place a call, without waiting for it.

        Shape: `speech` is frames, one each 20 ms (`speech.script`); `options` are CallPlan's. `tagged`: the first frame is an
        inaudible tag with the call's number (`AiTwin.session_of(call.number)` finds the other end).
        """
        return self.place(CallPlan(speech=tuple(speech), **options), tagged=tagged)

    def place(
        self,
        plan: CallPlan,
        *,
        tagged: bool = True,
        voice_url: str | None = None,
        status_url: str | None = None,
        amd_url: str = "",
    ) -> TwinCall:
        """Place a call by its plan, without waiting for it."""
        number = len(self.calls) + 1
        if tagged:
            plan = replace(plan, speech=(tag(number), *plan.speech))
        call = TwinCall(
            number,
            self.account_sid,
            plan,
            self.webhooks,
            voice_url or self._voice_url + (f"?agent={quote(plan.agent)}" if plan.agent else ""),
            status_url or self._status_url,
            self.rest.on_call_ended,
            self.callees,
            self.dials,
            amd_url,
        )
        self.calls[call.call_sid] = call
        self._pool.spawn(call.run)
        return call

    def _place_outbound(self, fields: Mapping[str, str]) -> TwinCall:
        """Place a call that the gateway asked for."""
        earlier = self.placed.setdefault(fields["To"], [])
        callee = self.callee_of(fields["To"], len(earlier))
        plan = replace(callee, from_number=fields["From"], to_number=fields["To"], direction="outbound-api")
        amd_url = fields.get("AsyncAmdStatusCallback", "") if fields.get("AsyncAmd") == "true" else ""
        call = self.place(plan, voice_url=fields["Url"], status_url=fields.get("StatusCallback"), amd_url=amd_url)
        earlier.append(call.call_sid)
        return call

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of every call placed so far. Returns whether all ended."""
        deadline_s = time.monotonic() + timeout_s
        return all(call.wait(max(0.0, deadline_s - time.monotonic())) for call in list(self.calls.values()))
