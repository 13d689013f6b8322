"""Every answer of Twilio or a proxy becomes a value or a typed error."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Iterator

import gevent
import gevent.server
import pytest

from gw.control.twilio_api.answers import Listed, RestError, Started
from gw.control.twilio_api.rest import TwilioRest
from tests.gw.control.scripted_rest import (
    ACCOUNT,
    CALL,
    HTML,
    RECORDING,
    Answer,
    ScriptedRest,
    created,
    listing,
    recording,
    refusal,
    rest_of,
)

CALLBACK = "https://voice.example.com/twilio/recording"


@pytest.fixture
def server() -> Iterator[ScriptedRest]:
    server = ScriptedRest()
    yield server
    server.stop()


def error_of(rest: TwilioRest) -> RestError:
    with pytest.raises(RestError) as caught:
        rest.start_recording(CALL, channels="dual", status_callback=CALLBACK)
    return caught.value


def test_start_sends_what_twilio_expects(server: ScriptedRest) -> None:
    server.posts.append(created())
    started = rest_of(server.config()).start_recording(CALL, channels="dual", status_callback=CALLBACK)
    assert started == Started(sid=RECORDING, status="in-progress")
    (request,) = server.seen
    assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}/Recordings.json"
    assert request.form["RecordingChannels"] == ["dual"]
    assert request.form["RecordingStatusCallback"] == [CALLBACK]
    assert request.form["RecordingStatusCallbackEvent"] == ["in-progress", "completed", "absent"]
    assert base64.b64decode(request.authorization.removeprefix("Basic ")).decode() == f"{ACCOUNT}:secret"


def test_without_a_callback_none_is_sent(server: ScriptedRest) -> None:
    server.posts.append(created())
    rest_of(server.config()).start_recording(CALL, channels="mono", status_callback="")
    assert set(server.seen[0].form) == {"RecordingChannels"}


def test_a_path_in_the_base_is_kept(server: ScriptedRest) -> None:
    server.posts.append(created())
    rest_of(server.config(base=server.base + "/behind/proxy/")).start_recording(CALL, channels="dual", status_callback="")
    assert server.seen[0].path.startswith("/behind/proxy/2010-04-01/Accounts/")


@pytest.mark.parametrize(
    ("answer", "kind", "label"),
    [
        (refusal(400, 21220), "not_in_progress", "21220"),
        (refusal(404, 20404), "gone", "20404"),
        (Answer(404, b"not here"), "gone", "gone"),
        (refusal(401, 20003), "unauthorized", "20003"),
        (refusal(403, 20005), "unauthorized", "20005"),
        (refusal(429, 20429), "busy", "20429"),
        (Answer(429, HTML), "busy", "busy"),
        (refusal(400, 16114), "busy", "16114"),
        (Answer(503, HTML), "server", "server"),
        (refusal(500, 20500), "server", "20500"),
        (refusal(400, 21606), "rejected", "21606"),
        (Answer(302, b""), "rejected", "rejected"),
        (Answer(201, b"<html>"), "timeout", "timeout"),
        (Answer(201, ["no", "object"]), "timeout", "timeout"),
        (Answer(201, {"status": "in-progress"}), "timeout", "timeout"),
        (Answer(400, {"type": "about:blank", "title": "Bad", "status": 400, "code": 21220}), "not_in_progress", "21220"),
    ],
)
def test_each_refusal_has_its_kind(server: ScriptedRest, answer: Answer, kind: str, label: str) -> None:
    server.posts.append(answer)
    error = error_of(rest_of(server.config()))
    assert (error.kind, error.label) == (kind, label)
    assert server.count("POST") == 1, "the client never retries"


def test_a_hang_is_a_timeout(server: ScriptedRest) -> None:
    server.posts.append(Answer(201, recording(), hold_s=5.0))
    assert error_of(rest_of(server.config(timeout_s=0.1))).kind == "timeout"


def test_a_dripping_answer_is_ended_by_the_outer_bound() -> None:
    def drip(connection: socket.socket, _address: object) -> None:
        try:
            while True:
                connection.sendall(b"H")
                gevent.sleep(0.02)
        except OSError:
            return

    server = gevent.server.StreamServer(("127.0.0.1", 0), drip)
    server.start()
    rest = rest_of(ScriptedRest().config(base=f"http://127.0.0.1:{server.server_port}", timeout_s=0.1))
    rest.bound_s = 0.2
    try:
        assert error_of(rest).kind == "timeout"
    finally:
        server.stop(timeout=0)


def test_a_timeout_of_the_caller_passes_through(server: ScriptedRest) -> None:
    server.posts.append(Answer(201, recording(), hold_s=5.0))
    rest = rest_of(server.config())
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.1) as outer:
        rest.start_recording(CALL, channels="dual", status_callback="")
    assert caught.value is outer


def test_a_failure_of_the_network_has_words_and_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refused = error_of(rest_of(ScriptedRest().config(base=f"http://127.0.0.1:{port}")))
    assert refused.text == f"no connection to 127.0.0.1:{port}, Connection refused; check twilio.api_base and the network"
    nowhere = error_of(rest_of(ScriptedRest().config(base="http://no-such-name.invalid")))
    assert (nowhere.kind, nowhere.text) == (
        "unreachable",
        "no connection to no-such-name.invalid, its name has no address; check twilio.api_base and the network",
    )


def test_a_closed_connection_is_unclear_and_a_refused_one_is_not() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    rest = rest_of(ScriptedRest().config(base=f"http://127.0.0.1:{port}"))
    accepted = gevent.spawn(lambda: listener.accept()[0].close())
    assert error_of(rest).kind == "timeout"
    accepted.join(1)
    listener.close()
    assert error_of(rest).kind == "unreachable"


def test_a_base_without_a_scheme_is_rejected() -> None:
    assert error_of(rest_of(ScriptedRest().config(base="nowhere"))).kind == "rejected"


def test_listing_is_tolerant(server: ScriptedRest) -> None:
    absent = recording("RE" + "3" * 32, "absent", error_code=13421, channels="1", source=None)
    server.gets.append(listing(recording(status="completed", duration="12"), absent))
    assert rest_of(server.config()).list_recordings(CALL) == [
        Listed(sid=RECORDING, status="completed", source="StartCallRecordingAPI", channels=2, duration_s=12, error_code=0),
        Listed(sid="RE" + "3" * 32, status="absent", source="", channels=1, duration_s=-1, error_code=13421),
    ]


def test_an_unreadable_listing_is_an_error(server: ScriptedRest) -> None:
    server.gets.append(Answer(200, b"<html>"))
    with pytest.raises(RestError) as caught:
        rest_of(server.config()).list_recordings(CALL)
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize(
    ("answer", "kind", "label"),
    [
        (refusal(404, 20404), "gone", "20404"),
        (refusal(401, 20003), "unauthorized", "20003"),
        (refusal(429, 20429), "busy", "20429"),
        (Answer(503, HTML), "server", "server"),
        (Answer(200, ["no", "object"]), "timeout", "timeout"),
    ],
)
def test_each_refused_listing_has_its_kind(server: ScriptedRest, answer: Answer, kind: str, label: str) -> None:
    server.gets.append(answer)
    with pytest.raises(RestError) as caught:
        rest_of(server.config()).list_recordings(CALL)
    assert (caught.value.kind, caught.value.label) == (kind, label)


def test_complete_call(server: ScriptedRest) -> None:
    server.posts.append(Answer(200, {"sid": CALL, "status": "completed"}))
    assert rest_of(server.config()).complete_call(CALL) == "completed"
    assert server.seen[0].form == {"Status": ["completed"]}
    assert server.seen[0].path.endswith(f"/Calls/{CALL}.json")


def test_nothing_secret_is_kept_or_logged(server: ScriptedRest, caplog: pytest.LogCaptureFixture) -> None:
    server.posts.append(created())
    rest = rest_of(server.config())
    with caplog.at_level(logging.DEBUG, logger="gw"):
        rest.start_recording(CALL, channels="dual", status_callback=CALLBACK)
    assert rest._client.http_client._test_only_last_request is None
    assert CALLBACK not in caplog.text


def test_a_recording_is_deleted(server: ScriptedRest) -> None:
    rest = rest_of(server.config())
    server.gets += [Answer(204, b""), refusal(404, 20404)]
    rest.delete_recording(RECORDING)
    assert (server.seen[0].method, server.seen[0].path) == (
        "DELETE",
        f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{RECORDING}.json",
    )
    with pytest.raises(RestError) as caught:
        rest.delete_recording(RECORDING)
    assert caught.value.kind == "gone"


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (refusal(404, 20404), "gone", "20404"),
        (Answer(429, HTML, retry_after="7"), "busy", "refused"),
        (Answer(206, b"half"), "timeout", "unexpected part"),
    ],
)
def test_a_download_is_refused(server: ScriptedRest, answer: Answer, kind: str, text: str) -> None:
    server.gets.append(answer)
    with pytest.raises(RestError, match=text) as caught, rest_of(server.config()).media(RECORDING, channels=2, start=3):
        pytest.fail("it has no audio")
    assert caught.value.kind == kind
    assert caught.value.retry_after_s == (7.0 if answer.retry_after else 0.0)
