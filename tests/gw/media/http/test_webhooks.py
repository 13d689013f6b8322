"""gw.media.http.webhooks over a real server: signatures, TwiML, invalid forms."""

from __future__ import annotations

import http.client
import time
import xml.etree.ElementTree as ElementTree
from typing import Any
from urllib.parse import urlencode

import pytest
from gevent import socket

from gw import bus
from gw.call.cost.usage import day_of
from gw.call.state import Reason
from gw.config import REPEATED, Agent, Budget, Overflow, Route, RouteLookup
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.http import server as server_module
from gw.media.http import webhooks
from gw.media.shared.routing import id_of
from gw.protocol.ai import TokenLimit
from gw.protocol.hooks.route_call import Decision
from gw.protocol.http import MAX_BODY_BYTES
from gw.protocol.signature import SigningSecrets, sign
from gw.protocol.token import TokenError, check
from gw.protocol.webhook_form import MAX_FIELDS
from metrics.declare import OVERFLOW, REQUESTS_REFUSED, WEBHOOKS
from tests.gw.media.support import ACCOUNT, CALL, WAIT_S, ContextMaker
from tests.timing import scaled

PUBLIC = "https://voice.example.com"
FORM = [("CallSid", CALL), ("From", "+15550001"), ("To", "+15550002"), ("Direction", "inbound"), ("Blank", "")]


SHORT = b"CallSid=" + CALL.encode()


class Client:
    """Client that posts forms as Twilio does."""

    def __init__(self, contexts: ContextMaker, **options: object) -> None:
        self.contexts = contexts
        self.context, self.emitted = contexts.context(public_url=PUBLIC, **options)  # type: ignore[arg-type]
        _, self.address = contexts.server(self.context)

    def post(
        self,
        path: str,
        form: list[tuple[str, str]] | bytes = FORM,
        *,
        method: str = "POST",
        signature: str | None = None,
        **headers: str,
    ) -> tuple[int, str, str]:
        """Post a form. Returns the status, the content type and the body."""
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        if signature is not None:
            headers["X-Twilio-Signature"] = signature
        connection = http.client.HTTPConnection(*self.address, timeout=WAIT_S)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        answer = response.status, response.getheader("Content-Type", ""), response.read().decode()
        connection.close()
        return answer

    def refused(self, reason: str) -> float:
        return self.context.page.counter(REQUESTS_REFUSED, reason=reason).value

    def counted(self, kind: str, outcome: str) -> float:
        return self.context.page.counter(WEBHOOKS, kind=kind, outcome=outcome).value


@pytest.fixture
def client(contexts: ContextMaker) -> Client:
    return Client(contexts)


@pytest.fixture
def signed(contexts: ContextMaker) -> Client:
    return Client(contexts, signed=True)


def parameters_of(twiml: str) -> dict[str, str]:
    root = ElementTree.fromstring(twiml)
    return {element.get("name", ""): element.get("value", "") for element in root.iter("Parameter")}


def test_a_balancers_health_check_is_answered(client: Client, signed: Client):
    client.context.draining = True
    assert client.post("/healthz", b"", method="GET") == (200, "text/plain; charset=utf-8", "a worker answers\n")
    assert signed.post("/healthz", b"", method="GET")[0] == 200
    assert client.post("/healthz", b"", method="HEAD") == (200, "text/plain; charset=utf-8", "")
    assert client.post("/healthz", b"a=b")[0] == 405


def test_voice_opens_a_stream_with_a_token_for_this_call(client: Client):
    status, content_type, body = client.post("/twilio/voice")
    assert (status, content_type) == (200, "text/xml; charset=utf-8")
    root = ElementTree.fromstring(body)
    assert [element.tag for element in root] == ["Connect", "Hangup"]
    connect = root[0]
    assert connect.get("action") == PUBLIC + "/twilio/action" + REPEATED
    stream = connect[0]
    assert stream.get("url") == "wss://voice.example.com/media"
    assert stream.get("statusCallback") == PUBLIC + "/twilio/stream" + REPEATED
    parameters = parameters_of(body)
    token = parameters.pop("token")
    assert parameters == {"agent": "default", "direction": "inbound", "caller": "+15550001", "called": "+15550002"}
    bound = {"agent": "default"}
    assert len(check(client.context.token_key, token, CALL, time.time(), parameters=bound).nonce) == 16
    assert parameters_of(client.post("/twilio/voice", [*FORM, ("X", "1")])[2])["token"] != token, "another webhook, another token"
    assert client.counted("voice", "accepted") == 2
    assert client.emitted == [], "an announced call causes no event"


def test_the_webhooks_url_names_an_agent(contexts: ContextMaker):
    agents = {"default": Agent(), "sales": Agent()}
    client, signed = Client(contexts, agents=agents), Client(contexts, agents=agents, signed=True)
    path = "/twilio/voice?agent=sales&x=1"
    assert parameters_of(client.post(path)[2])["agent"] == "sales"
    assert parameters_of(client.post("/twilio/voice?" + "&a=1" * (MAX_FIELDS + 1))[2])["agent"] == "default"
    token = signed.context.config.secrets.twilio_auth_token
    assert signed.post(path, signature=sign(token, PUBLIC + path, FORM))[0] == 200
    assert signed.post(path, signature=sign(token, PUBLIC + "/twilio/voice", FORM))[0] == 403


def test_an_unknown_agent_is_refused_with_words_and_one_row(client: Client, caplog: pytest.LogCaptureFixture):
    for _ in range(2):
        status, _, body = client.post("/twilio/voice?agent=salse")
        assert (status, [element.tag for element in ElementTree.fromstring(body)]) == (200, ["Say", "Hangup"])
    assert Overflow().text in body
    begun, ended = client.emitted
    assert isinstance(begun, bus.CallStarted)
    assert isinstance(ended, bus.CallEnded)
    assert (begun.call_sid, begun.agent, begun.from_number, begun.to_number) == (CALL, "salse", "+15550001", "+15550002")
    assert (ended.call_sid, ended.reason, ended.result) == (CALL, "unknown_agent", "peer_error")
    (line, _) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "'salse'" in line.getMessage()
    assert "use one of: default" in line.getMessage()
    assert client.counted("voice", "failed") == 2
    assert client.context.slots.reserved == 0


ROUTES = (
    Route(called="+15550002", agent="clerk", variables={"who": "Ann"}, record=False),
    Route(called="+15550003", refuse="busy"),
    Route(called="+15550004", refuse="We are closed."),
    Route(called="+15550005", dial="sip:desk@example.com"),
)


@pytest.fixture
def routed(contexts: ContextMaker) -> Client:
    return Client(contexts, agents={"default": Agent(), "clerk": Agent(instructions="{{who}}")}, routes=ROUTES)


def _to(number: str) -> list[tuple[str, str]]:
    return [("CallSid", CALL), ("From", "+15550001"), ("To", number), ("Direction", "inbound")]


def test_a_route_chooses_the_agent_of_the_stream(routed: Client):
    body = routed.post("/twilio/voice")[2]
    parameters = parameters_of(body)
    route = id_of(ROUTES[0])
    assert (parameters["agent"], parameters["route"]) == ("clerk", route)
    assert ElementTree.fromstring(body)[0].get("action") == f"{PUBLIC}/twilio/action?route={route}&agent=clerk{REPEATED}"
    bound = {"agent": "clerk", "route": route}
    assert check(routed.context.token_key, parameters["token"], CALL, time.time(), parameters=bound)
    with pytest.raises(TokenError):
        check(routed.context.token_key, parameters["token"], CALL, time.time(), parameters={"agent": "clerk"})


def test_a_call_without_a_route_has_the_default_agent(routed: Client):
    parameters = parameters_of(routed.post("/twilio/voice", _to("+15550009"))[2])
    assert parameters["agent"] == "default"
    assert "route" not in parameters


def test_an_agent_in_the_url_needs_no_route(routed: Client):
    for number in ("+15550002", "+15550003"):
        parameters = parameters_of(routed.post("/twilio/voice?agent=default", _to(number))[2])
        assert (parameters["agent"], "route" in parameters) == ("default", False)


@pytest.mark.parametrize(
    ("number", "document", "event"),
    [
        ("+15550003", '<Reject reason="busy" />', "route_refused"),
        ("+15550004", "<Say>We are closed.</Say><Hangup />", "route_refused"),
        ("+15550005", "<Dial><Sip>sip:desk@example.com</Sip></Dial><Hangup />", "route_dialled"),
    ],
)
def test_a_route_refuses_or_connects_elsewhere(routed: Client, number: str, document: str, event: str):
    routed.context.draining = True  # a slot is not needed
    for _ in range(2):
        assert f"<Response>{document}</Response>" in routed.post("/twilio/voice", _to(number))[2]
    assert [one.kind for one in routed.emitted if isinstance(one, bus.CallEvent)] == [event]


def test_a_resumed_call_keeps_its_route(routed: Client):
    route = id_of(ROUTES[0])
    routed.context.keep_ending(CALL, Reason.PHONE_LOST, "clerk")
    routed.context.ask = lambda call_sid, about, account_sid: bus.Answer(
        1, "resume", "clerk", 1, time.time(), reason="phone_lost"
    )
    body = routed.post(f"/twilio/action?route={route}", [("CallSid", CALL), ("CallStatus", "in-progress")])[2]
    parameters = parameters_of(body)
    assert (parameters["agent"], parameters["resume"], parameters["route"]) == ("clerk", "1", route)
    assert f"/twilio/action?route={route}" in body


NOTICE = "This call is recorded."


@pytest.mark.parametrize(("query", "is_told"), [("", True), (f"?route={id_of(ROUTES[0])}", False), ("?var_recording=no", False)])
def test_a_call_that_continues_hears_the_notice_only_if_it_is_recorded(contexts: ContextMaker, query: str, is_told: bool):
    client = Client(contexts, agents={"default": Agent()}, routes=ROUTES, recording={"consent": NOTICE}, signed=True)
    client.context.ask = lambda call_sid, about, account_sid: bus.Answer(1, "resume", "default", 1, time.time(), reason="lost")
    form = [*FORM, ("AccountSid", ACCOUNT), ("CallStatus", "in-progress")]
    path = f"/twilio/action{query}"
    token = client.context.config.secrets.twilio_auth_token
    body = client.post(path, form, signature=sign(token, PUBLIC + path, form))[2]
    assert (f"<Say>{NOTICE}</Say><Connect" in body) == is_told, body
    assert parameters_of(body)["resume"] == "1"


def test_a_variable_of_an_outbound_call_turns_the_recording_off(contexts: ContextMaker):
    client = Client(contexts, agents={"default": Agent()}, recording={"consent": NOTICE}, signed=True)
    for value, is_told in (("no", False), ("yes", True)):
        form = [*FORM, ("AccountSid", ACCOUNT), ("X", value)]
        path = f"/twilio/voice?agent=default&var_recording={value}"
        token = client.context.config.secrets.twilio_auth_token
        body = client.post(path, form, signature=sign(token, PUBLIC + path, form))[2]
        assert (f"<Say>{NOTICE}</Say><Connect" in body) == is_told, body


def test_a_call_without_a_stream_has_its_variables_before_its_start(routed: Client):
    answers = [bus.Answer(1, reason="no_stream"), bus.Answer(1, "resume", "clerk", 1, time.time(), reason="no_stream")]
    routed.context.ask = lambda call_sid, about, account_sid: answers.pop(0)
    path = f"/twilio/action?agent=clerk&route={id_of(ROUTES[0])}&var_day=today"
    body = routed.post(path, [("CallSid", CALL), ("CallStatus", "in-progress")])[2]
    assert parameters_of(body)["after"] == "no_stream"
    hook, variables, started, ended = routed.emitted
    assert isinstance(variables, bus.CallEvent)
    assert (variables.kind, variables.data) == ("variables", {"who": "Ann", "day": "today"})
    assert [type(one) for one in (hook, started, ended)] == [bus.Webhook, bus.CallStarted, bus.CallEnded]


def _asked(contexts: ContextMaker, *answers: Decision | None, **keys: Any) -> Client:
    """A client whose control answers with these decisions, one for each question."""
    client = Client(
        contexts,
        agents={"default": Agent(), "clerk": Agent(instructions="{{who}}")},
        routes=ROUTES,
        route=RouteLookup(url="https://x.example/", timeout_s=0.1, **keys),
    )
    left = list(answers)

    def put(question: bus.Ask, limit_s: float) -> bus.Answer:
        decision = left.pop(0)
        return bus.Answer(1, route=decision, reason="ok" if decision else "timeout")

    client.context.lookups.put = put
    return client


def test_the_endpoint_decides_where_no_route_fits(contexts: ContextMaker):
    ann = Decision(agent="clerk", variables={"who": "Ann"})
    client = _asked(contexts, ann, ann)
    first, again = (client.post("/twilio/voice", _to("+15550009"))[2] for _ in range(2))
    parameters = parameters_of(first)
    assert first == again
    assert (parameters["agent"], parameters["route"][:6]) == ("clerk", "asked-")
    assert "Ann" not in first
    bound = {"agent": "clerk", "route": parameters["route"]}
    assert check(client.context.token_key, parameters["token"], CALL, time.time(), parameters=bound)
    assert f"/twilio/action?route={parameters['route']}" in first
    assert "Reject" in client.post("/twilio/voice", _to("+15550003"))[2], "a static route comes first"
    assert (client.counted("voice", "accepted"), client.counted("voice", "repeated")) == (2, 1)


def test_an_agent_of_the_endpoint_that_is_not_configured(contexts: ContextMaker, caplog: pytest.LogCaptureFixture):
    body = _asked(contexts, Decision(agent="salse")).post("/twilio/voice", _to("+15550009"))[2]
    assert Overflow().text in body
    assert "the route endpoint names the agent 'salse', which is not configured; use one of: clerk, default" in caplog.text


@pytest.mark.parametrize(("on_failure", "expected"), [("clerk", '"clerk"'), ("refuse", Overflow().text)])
def test_an_endpoint_without_an_answer(contexts: ContextMaker, on_failure: str, expected: str):
    client = _asked(contexts, None, None, on_failure=on_failure)
    assert all(expected in client.post("/twilio/voice", _to("+15550009"))[2] for _ in range(2))
    events = [one for one in client.emitted if isinstance(one, bus.CallEvent)]
    assert {(one.kind, one.data["why"], one.data["refused"]) for one in events} == {
        ("route_failed", "timeout", on_failure == "refuse")
    }


def test_a_spent_budget_is_answered_with_the_overflow(contexts: ContextMaker):
    client = Client(contexts, budget=Budget(day_usd=5.0, caller_day_usd=1.0))
    today = day_of(time.time())
    client.context.budget_board.on_budget(bus.Budget(today, 4.0, {"+15550001": 0.0}))
    assert Overflow().text in client.post("/twilio/voice")[2]
    assert "<Stream" in client.post("/twilio/voice", [*FORM[:1], ("From", "+15550009")])[2], "another caller"
    assert "<Stream" in client.post("/twilio/voice", [*FORM[:2], ("Direction", "outbound-api")])[2], "an outbound call"
    client.context.budget_board.on_budget(bus.Budget(today, 0.0))
    status, _, body = client.post("/twilio/voice", [("CallSid", "CA" + "9" * 32)], X_Submilli_Elsewhere="1")
    assert (status, Overflow().text in body) == (200, True), "no other machine has more left"
    assert client.context.page.counter(OVERFLOW, reason="budget").value == 2


def test_a_call_beyond_the_tokens_of_a_minute_is_answered_with_the_overflow(contexts: ContextMaker):
    client = Client(contexts, agents={"default": Agent(provider="openai", model="m"), "bird": Agent(model="m")})
    minute = client.context.token_minutes["m"]
    minute.on_used("CA1", 1000, time.monotonic())
    minute.on_limit(TokenLimit(10_000, 900, 3600.0), time.monotonic())
    assert Overflow().text in client.post("/twilio/voice")[2]
    assert "<Stream" in client.post("/twilio/voice?agent=bird")[2], "the parrot has no limit"
    minute.on_limit(TokenLimit(10_000, 1100, 3600.0), time.monotonic())
    assert "<Stream" in client.post("/twilio/voice")[2]
    assert client.context.page.counter(OVERFLOW, reason="tokens").value == 1


def test_voice_without_a_call(client: Client):
    assert client.post("/twilio/voice", [("From", "+1")])[0] == 400
    assert client.counted("voice", "bad_request") == 1


def test_no_callers_name_breaks_the_document(client: Client):
    form = [("CallSid", CALL), ("From", '"/><Dial>+1900</Dial>\x00' + "x" * 1000), ("To", "\U0001f600")]
    status, _, body = client.post("/twilio/voice", form)
    assert status == 200
    assert [element.tag for element in ElementTree.fromstring(body)] == ["Connect", "Hangup"]
    assert parameters_of(body)["caller"].startswith('"/><Dial>')


@pytest.mark.parametrize("draining", [True, False])
def test_voice_is_answered_busy_without_a_free_slot(contexts: ContextMaker, draining: bool):
    client = Client(contexts, max_calls=1)
    client.context.draining = draining
    if not draining:
        client.context.slots.occupy("CA of another call")
    status, _, body = client.post("/twilio/voice")
    assert status == 200
    assert [element.tag for element in ElementTree.fromstring(body)] == ["Say", "Hangup"]
    assert client.counted("voice", "busy") == 1
    assert client.context.page.counter(OVERFLOW, reason="drained" if draining else "full").value == 1


def test_a_slot_is_one_calls_until_its_stream_has_ended(contexts: ContextMaker):
    client = Client(contexts, max_calls=1)
    assert "<Stream" in client.post("/twilio/voice")[2]
    assert "<Stream" in client.post("/twilio/voice")[2], "a repeated webhook of the same call"
    other = [("CallSid", "CA" + "9" * 32)]
    assert "<Stream" not in client.post("/twilio/voice", other)[2]
    client.context.slots.occupy(CALL)
    assert "<Stream" not in client.post("/twilio/voice", other)[2]
    client.context.slots.release()
    assert "<Stream" in client.post("/twilio/voice", other)[2]


@pytest.mark.parametrize(
    ("overflow", "document"),
    [
        (Overflow(answer="queue", queue="support", text="Please wait."), "<Say>Please wait.</Say><Enqueue>support</Enqueue>"),
        (Overflow(answer="queue", queue="support", text=""), "<Enqueue>support</Enqueue>"),
        (Overflow(answer="dial", dial="+15551234567"), "<Dial><Number>+15551234567</Number></Dial><Hangup />"),
        (Overflow(answer="dial", dial="sip:a@b.example"), "<Dial><Sip>sip:a@b.example</Sip></Dial><Hangup />"),
    ],
)
def test_overflow_is_answered_as_configured(contexts: ContextMaker, overflow: Overflow, document: str):
    client = Client(contexts, overflow=overflow)
    client.context.draining = True
    assert f"<Response>{document}</Response>" in client.post("/twilio/voice")[2]


@pytest.mark.parametrize("kind", ["status", "recording", "stream"])
def test_other_webhooks_reach_control_unchanged(client: Client, kind: str):
    form = [*FORM, ("Text", "grüß & co = 1+1")]
    assert client.post(f"/twilio/{kind}", form) == (204, "text/plain; charset=utf-8", "")
    (event,) = client.emitted
    assert isinstance(event, bus.Webhook)
    assert (event.kind, event.fields) == (kind, dict(form))
    assert client.counted(kind, "accepted") == 1


def test_keys_do_not_reach_control(client: Client):
    client.post("/twilio/action", [*FORM, ("Digits", "1234")])
    (event,) = client.emitted
    assert isinstance(event, bus.Webhook)
    assert event.fields["Digits"] == "[4 keys]"


def test_the_action_hangs_up(client: Client):
    client.context.keep_ending(CALL, Reason.CALLER_HANGUP, "default")
    status, _, body = client.post("/twilio/action")
    assert status == 200
    assert [element.tag for element in ElementTree.fromstring(body)] == ["Hangup"]
    assert [type(event) for event in client.emitted] == [bus.Webhook]


def action(
    client: Client, reason: Reason | None = None, answer: bus.Answer | None = None, *, speak: bool = False, **fields: str
) -> str:
    """Post the action webhook, given how the call ended here and control's answer."""
    sid = dict(FORM)["CallSid"]
    if reason is not None:
        client.context.keep_ending(sid, reason, "default", speak)
    asked: list[tuple[str, str, str]] = []

    def ask(call_sid: str, about: str, account_sid: str) -> bus.Answer | None:
        asked.append((call_sid, about, account_sid))
        return answer

    client.context.ask = ask
    body = client.post("/twilio/action", [*FORM, *fields.items()])[2]
    assert asked in ([], [(sid, "next", "")])
    return body + ("" if asked else "<!-- by itself -->")


GOODBYE = f"<Say>{Agent().goodbye}</Say><Hangup />"


def test_the_action_of_a_call_that_ended_here_asks_no_control(client: Client):
    assert "<Response><Hangup /></Response><!-- by itself -->" in action(client, Reason.AI_HANGUP)
    assert f"<Response>{GOODBYE}</Response><!-- by itself -->" in action(client, Reason.FALLBACK_GOODBYE)


@pytest.mark.parametrize(
    ("reason", "speak", "is_known"),
    [
        (Reason.AI_HANGUP, False, True),
        (Reason.AI_HANGUP, True, False),
        (Reason.PHONE_LOST, False, False),
        (Reason.FALLBACK_TRANSFER, False, False),
    ],
)
def test_no_worker_asks_control_about_a_caller_who_is_owed_nothing(client: Client, reason: Reason, speak: bool, is_known: bool):
    other = Client(client.contexts)
    other.context.keep_ending(CALL, reason, "default", speak)
    other.context.share_ending(CALL)
    body = action(client)
    assert body.endswith("<!-- by itself -->") is is_known
    assert ("<Say>" in body) is not is_known, "control is away"


def test_a_caller_who_heard_no_goodbye_hears_one(client: Client):
    closing = f"<Say>{Agent().closing}</Say><Hangup />"
    for reason in (Reason.AI_HANGUP, Reason.IDLE_LIMIT, Reason.DURATION_LIMIT, Reason.ADMIN_HANGUP):
        assert f"{closing}</Response><!-- by itself -->" in action(client, reason, speak=True)
    for reason in (Reason.PHONE_BAD_JSON, Reason.AI_REFUSED):
        assert f"{GOODBYE}</Response><!-- by itself -->" in action(client, reason, speak=True)
    answer = bus.Answer(1, step="goodbye", agent="default", reason="idle_limit")
    assert closing in action(Client(client.contexts), None, answer), "it ended at another worker"


@pytest.mark.parametrize("reason", [Reason.PHONE_LOST, Reason.PHONE_SILENT, Reason.PHONE_LEG_STALLED, Reason.INTERNAL_ERROR])
def test_the_action_resumes_a_call_whose_stream_broke_here(client: Client, reason: Reason):
    answer = bus.Answer(1, step="resume", agent="default", resumes=1, began_at=1234.5, reason=reason)
    parameters = parameters_of(action(client, reason, answer))
    assert (parameters["resume"], parameters["began"], parameters["after"]) == ("1", "1234.500", reason)
    assert f"<Response>{GOODBYE}" in action(client, reason, None), "control is away, which counts the resumes"


def test_the_action_transfers_a_caller_whom_rest_did_not(contexts: ContextMaker):
    client = Client(contexts, agents={"default": Agent(fallback="transfer", transfer_to="+15005550009")})
    assert "<Dial><Number>+15005550009</Number></Dial>" in action(client, Reason.FALLBACK_TRANSFER)
    assert "<Response><Hangup /></Response>" in action(client, Reason.FALLBACK_TRANSFER, bus.Answer(1, step="hang_up"))


def test_the_action_resumes_a_lost_call(client: Client):
    body = action(client, None, bus.Answer(1, step="resume", agent="default", resumes=2, began_at=1234.5))
    parameters = parameters_of(body.removesuffix("<!-- by itself -->"))
    assert (parameters["resume"], parameters["began"], parameters["agent"]) == ("2", "1234.500", "default")
    assert parameters["token"]


def test_a_lost_call_without_a_free_slot_gets_the_goodbye(client: Client):
    client.context.draining = True
    assert GOODBYE in action(client, None, bus.Answer(1, step="resume", agent="default", resumes=1, began_at=1.0))


def test_a_call_whose_stream_never_began_is_reported_and_gets_another_stream(client: Client):
    """Control does not know it: it is asked again behind the report."""
    answers = [
        bus.Answer(1, step="goodbye", reason="no_stream"),
        bus.Answer(2, step="resume", agent="sales", resumes=1, began_at=1234.5, reason="no_stream"),
        *(bus.Answer(n, step="resume", agent="sales", resumes=n - 1, began_at=1234.5, reason="no_stream") for n in (3, 4)),
    ]
    emitted: list[int] = []

    def ask(call_sid: str, about: str, account_sid: str) -> bus.Answer | None:
        emitted.append(len(client.emitted))
        return answers.pop(0)

    client.context.ask = ask
    form = [*FORM, ("CallStatus", "in-progress")]
    for n in ("1", "2"):  # Twilio may ask twice
        body = client.post("/twilio/action?agent=sales", form)[2]
        parameters = parameters_of(body)
        assert (parameters["resume"], parameters["after"], parameters["agent"]) == (n, "no_stream", "sales")
    assert emitted[1] - emitted[0] == 2
    following = ElementTree.fromstring(body)[0].attrib["action"].removeprefix(PUBLIC).removesuffix(REPEATED)
    assert following == "/twilio/action?agent=sales&again=1"
    assert GOODBYE in client.post(following, form)[2], "that one did not begin either"
    start, end = [one for one in client.emitted if isinstance(one, bus.CallStarted | bus.CallEnded)]
    assert isinstance(start, bus.CallStarted) and isinstance(end, bus.CallEnded)
    assert (start.call_sid, start.stream_sid, start.agent, start.from_number) == (CALL, "", "sales", dict(FORM)["From"])
    assert (end.call_sid, end.reason, end.result) == (CALL, "no_stream", "peer_error")


def test_the_action_url_names_the_agent(contexts: ContextMaker):
    client = Client(contexts, agents={"default": Agent(), "sales": Agent()})
    connect = ElementTree.fromstring(client.post("/twilio/voice?agent=sales")[2])[0]
    assert connect.get("action") == f"{PUBLIC}/twilio/action?agent=sales{REPEATED}"


def test_the_caller_of_an_unknown_call_hears_the_goodbye(client: Client):
    assert f"<Response>{GOODBYE}</Response>" in action(client, None, None)
    assert f"<Response>{GOODBYE}</Response>" in action(client, None, bus.Answer(1))


def test_among_machines_urls_name_this_machine(contexts: ContextMaker):
    client = Client(contexts, machine="vm-1")
    root = ElementTree.fromstring(client.post("/twilio/voice")[2])
    assert root[0].get("action") == PUBLIC + "/twilio/action/vm-1" + REPEATED
    assert root[0][0].get("url") == "wss://voice.example.com/media/vm-1"
    client.context.keep_ending(CALL, Reason.FALLBACK_GOODBYE, "default")
    for name in ("vm-1", "one-that-is-gone"):
        assert GOODBYE in client.post(f"/twilio/action/{name}")[2]
    assert [client.post(path)[0] for path in ("/twilio/action/", "/twilio/action/a/b", "/twilio/voice/vm-1")] == [404] * 3
    assert Client(contexts).post("/twilio/action/vm-1")[0] == 404, "a single machine has no name in its paths"


def test_a_balancer_gets_503_to_ask_another_machine(client: Client):
    """The body is the same, and is used only when no other machine has a free slot."""
    client.context.draining = True
    client.context.ask = lambda call_sid, about, account_sid: bus.Answer(
        1, step="resume", agent="default", resumes=1, began_at=1.0
    )
    for path in ("/twilio/voice", "/twilio/action"):
        here, elsewhere = client.post(path), client.post(path, X_Submilli_Elsewhere="1")
        assert (here[0], elsewhere[0]) == (200, 503)
        assert here[1:] == elsewhere[1:]
    client.context.keep_ending(CALL, Reason.AI_HANGUP, "default")
    assert client.post("/twilio/action", X_Submilli_Elsewhere="1")[0] == 200


def test_for_a_caller_who_is_gone_no_control_is_asked(client: Client):
    assert "<!-- by itself -->" in action(client, None, None, CallStatus="completed")


def test_paths_and_methods(client: Client):
    assert client.post("/twilio/voic")[0] == 404
    assert client.post("/")[0] == 404
    assert client.post("/twilio/voice", b"", method="GET")[0] == 405
    assert client.post("/twilio/voice", b"", method="PUT")[0] == 405
    assert (client.refused("not_found"), client.refused("bad_method")) == (2, 2)


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["voice", "status", "recording", "stream", "action"])
def test_only_a_signed_webhook_is_accepted(signed: Client, kind: str):
    path = f"/twilio/{kind}"
    good = sign("secret", PUBLIC + path, FORM)
    assert signed.post(path, signature=good)[0] in (200, 204)
    emitted = len(signed.emitted)
    others = [None, "", sign("other", PUBLIC + path, FORM), sign("secret", PUBLIC + path, FORM[1:]), "ü" * 28, good + "x"]
    for signature in others:
        headers = {} if signature is None else {"signature": signature.encode("utf-8").decode("latin-1")}
        assert signed.post(path, **headers)[0] == 403  # type: ignore[arg-type]
    assert len(signed.emitted) == emitted, "an unsigned webhook causes no event"
    assert signed.counted(kind, "bad_signature") == len(others)
    assert signed.counted(kind, "accepted") == 1


def test_the_signature_covers_the_query_byte_for_byte(signed: Client):
    path = "/twilio/status?a=%20b&c"
    assert signed.post(path, signature=sign("secret", PUBLIC + path, FORM))[0] == 204
    assert signed.post(path, signature=sign("secret", PUBLIC + "/twilio/status", FORM))[0] == 403


def test_without_a_signature_the_body_is_not_read(signed: Client):
    """The answer comes before a byte of the body was sent, not even asked for, and the connection ends."""
    for expects in (b"", b"Expect: 100-continue\r\n"):
        answer = raw(signed, HEAD + expects + b"Content-Length: 9000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"the request has no X-Twilio-Signature: https://voice.example.com/twilio/status\n")
    assert signed.refused("no_signature") == 2
    assert signed.counted("status", "bad_signature") == 2


def test_both_auth_tokens_and_a_shared_key_sign(signed: Client):
    context = signed.context
    context.signing_secrets[ACCOUNT] = SigningSecrets(("secret", "the old token"), "a shared key")
    url, settings = PUBLIC + "/twilio/status", "key=x,algorithm=HMAC_SHA256"
    assert signed.post("/twilio/status", signature=sign("the old token", url, FORM))[0] == 204
    sha256 = sign("a shared key", url, FORM, "HMAC_SHA256")
    assert signed.post("/twilio/status", signature=sha256, X_Twilio_Webhooks_Signature_Settings=settings)[0] == 204
    assert signed.post("/twilio/status", signature=sha256)[0] == 403
    assert signed.refused("bad_signature") == 1
    assert len(signed.emitted) == 1, "the same event, whoever signed it"


@pytest.mark.parametrize("kind", ["voice", "status", "recording", "stream", "action"])
def test_each_account_signs_with_its_own_token(signed: Client, kind: str):
    other = "AC" + "2" * 32
    signed.context.signing_secrets[other] = SigningSecrets(("another secret", "its old token"))
    path = f"/twilio/{kind}"

    def post(token: str, *account: str) -> int:
        form = [*FORM, *(("AccountSid", sid) for sid in account)]
        return signed.post(path, form, signature=sign(token, PUBLIC + path, form))[0]

    assert {post("secret"), post("secret", ACCOUNT), post("another secret", other), post("its old token", other)} <= {200, 204}
    assert [post("another secret"), post("another secret", ACCOUNT), post("secret", other)] == [403] * 3
    assert [post("another secret", other, ACCOUNT), post("secret", ACCOUNT, other)] == [403] * 2, "the last one counts"
    assert signed.refused("bad_signature") == 5
    assert signed.counted(kind, "bad_signature") == 5


def test_an_account_that_is_not_configured_is_named(signed: Client):
    form = [*FORM, ("AccountSid", "AC" + "3" * 32)]
    status, _, text = signed.post("/twilio/status", form, signature=sign("secret", PUBLIC + "/twilio/status", form))
    assert status == 403
    assert f"the account 'AC{'3' * 32}' is not configured" in text
    assert (signed.refused("wrong_account"), signed.counted("status", "bad_signature"), signed.emitted) == (1, 1, [])


@pytest.mark.parametrize("kind", ["voice", "status", "recording", "stream", "action"])
def test_a_webhook_of_another_account_than_its_calls_is_refused(signed: Client, kind: str):
    other = "AC" + "2" * 32
    signed.context.signing_secrets[other] = SigningSecrets(("another secret", ""))
    signed.context.keep_ending(CALL, Reason.PHONE_LOST, "default", account_sid=ACCOUNT)
    path, form = f"/twilio/{kind}", [*FORM, ("AccountSid", other), ("CallStatus", "completed")]
    status, _, text = signed.post(path, form, signature=sign("another secret", PUBLIC + path, form))
    assert (status, text) == (403, f"the call '{CALL}' is not of the account '{other}', which signed\n")
    assert (signed.refused("wrong_account"), signed.counted(kind, "wrong_account"), signed.emitted) == (1, 1, [])


def test_what_a_worker_keeps_of_a_call_is_of_its_account(contexts: ContextMaker):
    """The call's stream was at another worker: this one cannot know the account."""
    there, here = Client(contexts, signed=True), Client(contexts, signed=True)
    other = "AC" + "2" * 32
    here.context.signing_secrets[other] = SigningSecrets(("another secret", ""))
    there.context.keep_ending(CALL, Reason.AI_HANGUP, "default", account_sid=ACCOUNT)
    there.context.share_ending(CALL)
    asked: list[str] = []

    def ask(call_sid: str, about: str, account_sid: str) -> None:
        asked.append(account_sid)

    here.context.ask = ask

    def post(kind: str, secret: str, *fields: tuple[str, str]) -> str:
        path, form = f"/twilio/{kind}", [*FORM, *fields]
        return here.post(path, form, signature=sign(secret, PUBLIC + path, form))[2]

    parameters = parameters_of(post("voice", "another secret", ("AccountSid", other)))
    post("action", "another secret", ("AccountSid", other))
    assert asked == [other], "control knows the account"
    post("status", "another secret", ("AccountSid", other), ("CallStatus", "completed"))
    assert "<Stream" in post("voice", "secret"), "the call is not over"
    token, key, bound = parameters["token"], here.context.token_key, {"agent": "default"}
    with pytest.raises(TokenError):
        check(key, token, CALL, time.time(), parameters=bound)
    assert check(key, token, here.context.name_of(CALL, other), time.time(), parameters=bound)
    post("action", "secret")
    assert asked == [other], "its caller is owed nothing"


# -- repeated webhooks ------------------------------------------------------------------------------------------------


def test_a_repeated_voice_webhook_gets_the_same_answer_from_every_worker(contexts: ContextMaker):
    client, other = Client(contexts, max_calls=1), Client(contexts, max_calls=1)
    first = client.post("/twilio/voice")
    client.context.slots.occupy(CALL)
    assert client.post("/twilio/voice", FORM[::-1]) == first, "no free slot is needed"
    assert client.context.slots.reserved == 0, "no second reservation"
    other.context.token_key = client.context.token_key  # as the supervisor gives both
    assert other.post("/twilio/voice") == first
    assert [client.counted("voice", "accepted"), client.counted("voice", "repeated")] == [1, 1]
    assert other.counted("voice", "repeated") == 1
    assert "token" in parameters_of(first[2])
    assert client.post("/twilio/voice?agent=sales")[2] != first[2]


def test_a_refused_call_is_not_remembered(contexts: ContextMaker):
    client = Client(contexts)
    client.context.draining = True
    assert "<Stream" not in client.post("/twilio/voice")[2]
    client.context.draining = False
    assert "<Stream" in client.post("/twilio/voice")[2]


@pytest.mark.parametrize("kind", ["status", "recording", "stream", "action"])
def test_a_repeated_webhook_is_one_event(client: Client, contexts: ContextMaker, kind: str):
    path = f"/twilio/{kind}"
    first = client.post(path)
    assert client.post(path, FORM[::-1]) == first
    assert Client(contexts).post(path) == first, "at another worker"
    assert len(client.emitted) == 1
    assert [client.counted(kind, "accepted"), client.counted(kind, "repeated")] == [1, 1]
    client.post(path, [*FORM, ("SequenceNumber", "1")])
    assert len(client.emitted) == 2


def test_a_webhook_is_remembered_for_its_time(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhooks, "REMEMBERED_S", 0)
    client.post("/twilio/status")
    client.post("/twilio/status")
    assert len(client.emitted) == 2


def test_a_repeated_resume_opens_the_same_stream(client: Client):
    answer = bus.Answer(1, step="resume", agent="default", resumes=1, began_at=1.0)
    first = action(client, None, answer)
    assert "<Stream" in first
    assert action(client, None, answer) == first


def test_a_second_resume_within_a_minute_gets_another_token(client: Client):
    """The action webhook has the same fields after each stream, and the first resume's token is used."""
    tokens = []
    for resumes in (1, 2):
        body = action(client, None, bus.Answer(1, step="resume", agent="default", resumes=resumes, began_at=1.0))
        bound = parameters_of(body.removesuffix("<!-- by itself -->"))
        tokens.append(check(client.context.token_key, bound["token"], CALL, time.time(), parameters=bound))
    assert len({token.nonce for token in tokens}) == 2


@pytest.mark.parametrize("end", ["/twilio/status", "/twilio/action"])
def test_a_call_that_is_over_gets_no_new_token(client: Client, end: str):
    first = client.post("/twilio/voice")[2]
    client.post(end, [*FORM, ("CallStatus", "completed")])
    assert client.post("/twilio/voice")[2] == first, "its token is used, or expires"
    late = client.post("/twilio/voice", [*FORM, ("More", "1")])[2]
    assert [element.tag for element in ElementTree.fromstring(late)] == ["Hangup"]
    assert client.context.slots.reserved == 1
    other = [("CallSid", "CA" + "9" * 32)]
    assert "<Stream" in client.post("/twilio/voice", other)[2]
    assert "<Stream" not in client.post("/twilio/voice", [("CallSid", "CA" + "8" * 32), ("CallStatus", "canceled")])[2]


def test_an_action_that_hangs_up_ends_the_call(client: Client):
    assert "<Hangup" in action(client, Reason.AI_HANGUP)
    assert "<Stream" not in client.post("/twilio/voice")[2]


def test_an_event_is_not_lost_while_other_workers_hold_the_lock(client: Client, monkeypatch: pytest.MonkeyPatch):
    def busy(*arguments: object, is_end: bool = False) -> int:
        raise SharedBusyError("held")

    monkeypatch.setattr(client.context.ledger, "remember", busy)
    completed = [*FORM, ("CallStatus", "completed")]
    assert client.post("/twilio/status", completed)[0] == client.post("/twilio/status", completed)[0] == 204
    assert len(client.emitted) == 2
    assert "<Stream" in client.post("/twilio/voice")[2]


# -- without credentials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/status", "/media", "/healthz", "/", "/other"])
def test_without_credentials_other_hosts_and_web_pages_are_refused(client: Client, path: str):
    here = f"127.0.0.1:{client.address[1]}"
    for host in ("rebound.example.com", f"rebound.example.com:{client.address[1]}", "127.0.0.1.example.com"):
        assert client.post(path, Host=host)[0] == 403
    for origin in ("http://evil.example.com", "null", "http://127.0.0.1:1", f"http://localhost:{client.address[1]}"):
        status, _, text = client.post(path, Host=here, Origin=origin)
        assert (status, "set twilio.account_sid" in text) == (403, True)
    assert (client.refused("foreign_host"), client.refused("foreign_origin")) == (3, 4)
    assert client.emitted == []
    assert client.post(path, Host=here, Origin=f"http://{here}")[0] != 403
    assert client.post(path, Host=f"localhost:{client.address[1]}")[0] != 403


def test_the_talk_page_needs_its_key(contexts: ContextMaker):
    keyed = Client(contexts, talk_key="k")
    status, content_type, body = keyed.post("/talk?key=k", b"", method="GET")
    assert (status, content_type, "<title>Talk to" in body) == (200, "text/html; charset=utf-8", True)
    assert keyed.post("/talk?key=k", b"", method="HEAD")[::2] == (200, "")
    assert keyed.post("/talk?key=k", b"a=b")[0] == 405
    assert keyed.post("/talk?key=x", b"", method="GET")[0] == 404
    assert keyed.post("/talk?key=k", b"", method="GET", Host="rebound.example.com")[0] == 403
    assert Client(contexts, signed=True, talk_key="k").post("/talk?key=k", b"", method="GET")[0] == 404


def test_with_credentials_the_signature_decides(signed: Client):
    path = "/twilio/status"
    for headers in ({"Host": "any.example.com"}, {"Origin": "https://any.example.com"}):
        assert signed.post(path, signature=sign("secret", PUBLIC + path, FORM), **headers)[0] == 204


# -- invalid forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"CallSid=\xff\xfe",
        b"CallSid=%ff",
        b"CallSid=%ED%A0%80",
        b"&".join(b"f%d=1" % n for n in range(MAX_FIELDS + 1)),
    ],
    ids=["not UTF-8", "not UTF-8 within", "half a surrogate pair", "too many fields"],
)
@pytest.mark.parametrize("kind", ["voice", "status"])
def test_a_bad_form_is_refused(client: Client, kind: str, body: bytes):
    status, _, text = client.post(f"/twilio/{kind}", body)
    assert status == 400
    assert text.endswith("\n")
    assert client.emitted == []
    assert client.counted(kind, "bad_request") == client.refused("bad_form") == 1


@pytest.mark.parametrize("kind", ["voice", "status", "recording", "stream", "action"])
@pytest.mark.parametrize("wrong", [{"CallSid": "CA1"}, {"CallSid": CALL, "RecordingSid": "x"}])
def test_a_wrong_sid_is_refused_and_no_event(client: Client, caplog: pytest.LogCaptureFixture, kind: str, wrong: dict[str, str]):
    status, _, text = client.post(f"/twilio/{kind}", list(wrong.items()))
    assert (status, client.emitted, client.counted(kind, "bad_request")) == (400, [], 1)
    assert text.startswith("RecordingSid 'x'" if len(wrong) == 2 else "CallSid ")
    assert text.strip() in caplog.text


def test_the_longest_form_is_accepted(client: Client):
    body = SHORT + b"&a=" + b"x" * (MAX_BODY_BYTES - len(SHORT) - 3)
    assert client.post("/twilio/status", body)[0] == 204


def test_a_longer_form_is_413(client: Client):
    assert client.post("/twilio/status", b"x" * (MAX_BODY_BYTES + 1))[0] == 413
    assert client.emitted == []


def test_an_empty_form(client: Client):
    assert client.post("/twilio/status", b"")[0] == 204, "a callback of no call changes nothing"
    assert client.post("/twilio/voice", b"")[0] == client.post("/twilio/action", b"")[0] == 400
    assert client.emitted == []


def raw(client: Client, request: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    sock = socket.create_connection(client.address)
    sock.settimeout(WAIT_S)
    sock.sendall(request)
    answer = b""
    while data := sock.recv(65536):
        answer += data
    sock.close()
    return answer


HEAD = b"POST /twilio/status HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0;last\r\nTrailer: x\r\n\r\n"])
def test_a_chunked_form_is_read(client: Client, end: bytes):
    """Tunnels stream a body so."""
    chunks = b"%x\r\n%b\r\n1;x=y\r\nc\r\n" % (len(SHORT) + 4, SHORT + b"&a=b")
    answer = raw(client, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + end)
    assert answer.startswith(b"HTTP/1.1 204 ")
    (event,) = client.emitted
    assert isinstance(event, bus.Webhook)
    assert event.fields == {"CallSid": CALL, "a": "bc"}


def test_a_bad_chunk_is_refused(client: Client):
    answer = raw(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\na=bc\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert client.emitted == []


def test_expect_100_continue_is_answered(client: Client):
    sock = socket.create_connection(client.address)
    sock.settimeout(WAIT_S)
    sock.sendall(HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(SHORT))
    assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(SHORT)
    assert sock.recv(1000).startswith(b"HTTP/1.1 204 ")
    sock.close()


@pytest.mark.parametrize("length", [b"-1", b"x", b"1e3"])
def test_an_invalid_length_is_refused(client: Client, length: bytes):
    answer = raw(client, HEAD + b"Connection: close\r\nContent-Length: " + length + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert client.emitted == []


HALF_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "half a line": b"POST /twi",
    "half the headers": HEAD,
    "half a form": HEAD + b"Content-Length: 100\r\n\r\na=b",
    "half of what is too long": HEAD + b"Content-Length: 100000000\r\n\r\na=b",
}


@pytest.mark.parametrize("request_bytes", HALF_REQUESTS.values(), ids=HALF_REQUESTS.keys())
def test_a_request_that_never_ends_is_closed(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch, request_bytes: bytes):
    monkeypatch.setattr(server_module, "HEAD_S", 0.1)
    monkeypatch.setattr(server_module, "BODY_S", 0.1)
    client = Client(contexts)
    answer = raw(client, request_bytes)  # within WAIT_S, or the test fails
    assert b" 200 " not in answer
    assert b" 204 " not in answer
    assert client.emitted == []


def test_an_idle_connection_is_closed_and_a_busy_one_kept(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "IDLE_S", scaled(0.3))
    client = Client(contexts)
    connection = http.client.HTTPConnection(*client.address, timeout=WAIT_S)
    for n in range(3):
        connection.request("POST", "/twilio/status", SHORT + b"&SequenceNumber=%d" % n)
        response = connection.getresponse()
        assert (response.status, response.read()) == (204, b"")
    assert connection.sock.recv(1) == b"", "closed after its idle time"
    connection.close()
    assert len(client.emitted) == 3


KEY = "ab" * 16
LEFT = [*FORM, ("CallStatus", "in-progress")]


def answering(client: Client, answer: bus.Answer | None) -> list[tuple[str, ...]]:
    """Let control answer each question so. Returns the questions."""
    asked: list[tuple[str, ...]] = []

    def ask(call_sid: str, about: str, account_sid: str = "", **more: str) -> bus.Answer | None:
        asked.append((call_sid, about, *more.values()))
        return answer

    client.context.ask = ask
    return asked


def transfer_ends(client: Client) -> list[dict[str, Any]]:
    return [one.data for one in client.emitted if isinstance(one, bus.CallEvent) and one.kind == "transfer_ended"]


def test_a_caller_who_was_not_connected_gets_another_stream(client: Client):
    back = bus.Answer(1, "resume", "default", 2, time.time() - 9, reason="transferred", outcome="busy", text="sales")
    asked = answering(client, back)
    form = [*LEFT, ("DialCallStatus", "busy")]
    bodies = [client.post(f"/twilio/action?left={KEY}", form)[2] for _ in range(2)]
    assert bodies[0] == bodies[1], "Twilio may ask twice"
    parameters = {one.get("name"): one.get("value") for one in ElementTree.fromstring(bodies[0]).iter("Parameter")}
    assert {name: parameters[name] for name in ("resume", "after", "left", "outcome", "agent")} == {
        "resume": "2",
        "after": "transferred",
        "left": KEY,
        "outcome": "busy",
        "agent": "default",
    }
    assert asked[0] == (CALL, "left", KEY, "busy")
    assert transfer_ends(client) == [{"target": "sales", "status": "busy"}]


def test_a_transfer_whose_first_report_was_not_answered_ends_by_the_repetition(client: Client):
    """The worker that asked control for the next step has died, for instance."""
    form = [*LEFT, ("DialCallStatus", "busy")]

    def fail(*_asked: str, **_more: str) -> bus.Answer | None:
        raise RuntimeError("the worker dies")

    client.context.ask = fail
    assert client.post(f"/twilio/action?left={KEY}", form)[0] == 500
    assert transfer_ends(client) == []
    answering(client, bus.Answer(1, "hang_up", outcome="busy", text="sales"))
    for _ in range(2):
        assert client.post(f"/twilio/action?left={KEY}", form)[0] == 200
    assert transfer_ends(client) == [{"target": "sales", "status": "busy"}]


@pytest.mark.parametrize("status", ["no-answer", "canceled"])
def test_a_caller_who_left_during_the_ringing_is_the_last_word(client: Client, status: str):
    answering(client, bus.Answer(1, "resume", "default", 1, time.time(), reason="transferred", outcome=status, text="sales"))
    form = [*FORM, ("CallStatus", "completed"), ("DialCallStatus", status)]
    assert "<Hangup" in client.post(f"/twilio/action?left={KEY}", form)[2]
    assert transfer_ends(client) == [{"target": "sales", "status": "canceled"}]


def test_a_connected_caller_is_hung_up_after_the_talk(client: Client):
    answering(client, bus.Answer(1, "hang_up", outcome="completed", text="sales"))
    form = [*LEFT, ("DialCallStatus", "completed"), ("DialBridged", "true")]
    assert "<Response><Hangup /></Response>" in client.post(f"/twilio/action?left={KEY}", form)[2]
    assert transfer_ends(client) == [{"target": "sales", "status": "completed"}]


def test_a_caller_whose_return_is_not_possible_hears_the_goodbye(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhooks, "ASK_AGAIN_S", 0.2)
    client = Client(contexts, max_calls=1)
    asked = answering(client, None)
    assert Agent().goodbye in client.post(f"/twilio/action?left={KEY}", [*LEFT, ("DialCallStatus", "busy")])[2]
    assert len(asked) > 1, "control may be restarting"
    client.context.slots.occupy("CA of another call")
    answering(client, bus.Answer(1, "resume", "default", 1, time.time(), reason="digits_sent", outcome="sent"))
    assert Agent().goodbye in client.post(f"/twilio/action?left={KEY}&x=1", LEFT)[2]
    assert client.post(f"/twilio/action?left={KEY}&x=2", LEFT, X_Submilli_Elsewhere="1")[0] == 503


def test_a_whisper_is_spoken_and_accepted_with_a_key(client: Client):
    answering(client, bus.Answer(1, text="Anna & Bob. Press 1."))
    url = f"/twilio/whisper?call={CALL}&key={KEY}"
    child = [("CallSid", "CA" + "7" * 32), ("CallStatus", "in-progress")]
    body = client.post(url, child)[2]
    gather, hangup = ElementTree.fromstring(body)
    assert (gather.attrib["numDigits"], gather[0].text, hangup.tag) == ("1", "Anna & Bob. Press 1.", "Hangup")
    assert gather.attrib["action"] == f"{PUBLIC}{url}&accept=1{REPEATED}"
    assert "<Hangup" in client.post(f"{url}&accept=1", [*child, ("Digits", "2")])[2]
    answers = [client.post(f"{url}&accept=1", [*child, ("Digits", "1")])[2] for _ in range(2)]
    assert answers[0] == answers[1] and "<Hangup" not in answers[0]
    assert client.post(url, child)[2] == body, "Twilio may ask twice"
    accepted = [one for one in client.emitted if isinstance(one, bus.CallEvent)]
    assert [(one.call_sid, one.kind, one.data) for one in accepted] == [(CALL, "transfer_accepted", {"key": KEY})]
    assert not any(isinstance(one, bus.Webhook) for one in client.emitted), "the callee's leg is no call of the gateway"


@pytest.mark.parametrize("query", ["", "call=CA1&key=x", f"call=CA%221&key={KEY}", f"call={CALL}&key={KEY}"])
def test_a_whisper_that_is_not_known_is_declined(client: Client, query: str):
    answering(client, bus.Answer(1))
    assert "<Response><Hangup /></Response>" in client.post(f"/twilio/whisper?{query}", [("CallSid", "CA" + "7" * 32)])[2]
