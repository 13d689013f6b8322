"""Requests to Twilio's REST API, each bounded in time, with one type of error.

The error's kind states whether Twilio did the thing, did not, or may have (`timeout`). Strategy: the SDK's client over our own
HTTP client, which bounds every request and sends it to the configured base. The whole request, name lookup included, is bounded
by `within` too. Modules and resource classes are loaded when the process starts.

Never retries, never decides what follows, never logs a parameter.
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
import requests
from gevent.local import local
from requests.adapters import HTTPAdapter
from twilio.base.exceptions import (  # type: ignore[import-untyped]
    TwilioException,
    TwilioRestException,
    TwilioServiceException,
)
from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError

from gw.bounded import OutOfTimeError, within
from gw.config import Account, Config
from gw.config.rules import is_loopback
from gw.control.twilio_api.answers import Listed, RestError, Started, classify, parse_count, parse_retry_after
from gw.errors import text_of

#: Kept connections per host; a request beyond them waits within its own bound.
POOL_CONNECTIONS: Final = 16
#: Twilio's name of a call's present recording.
CURRENT: Final = "Twilio.CURRENT"
#: Recordings listed of one call; the gateway makes one. Also the calls listed to one number.
MAX_LISTED: Final = 50
#: Difference allowed between Twilio's clock, in whole seconds, and this machine's.
CLOCK_S: Final = 5.0
#: Upper bound on the download of one recording; an interrupted one continues later.
MEDIA_S: Final = 600.0
#: Bytes of a recording read in one piece, and of a refusal.
_CHUNK_BYTES: Final = 256 << 10
_REFUSAL_BYTES: Final = 4096
#: Time for the name lookup and TLS, beyond connecting and reading.
_MARGIN_S: Final = 1.0

# The SDK logs every request's parameters at INFO, phone numbers and callback URLs among them.
logging.getLogger("twilio.http_client").setLevel(logging.WARNING)


class _LastAnswer(local):
    """Retry-After of the calling greenlet's last answer: the SDK's errors have no headers."""

    retry_after_s = 0.0


class _Http(TwilioHttpClient):  # type: ignore[misc]
    """The SDK's HTTP client, with our base and a bound. Keeps nothing of a finished request."""

    def __init__(self, api_base: str, timeout_s: float) -> None:
        super().__init__(timeout=timeout_s)  # requests applies it to connecting and to each read
        base = urlsplit(api_base)
        self._scheme, self._netloc, self._prefix = base.scheme, base.netloc, base.path.rstrip("/")
        self.last = _LastAnswer()
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=POOL_CONNECTIONS, max_retries=0))
        if is_loopback(base.hostname or ""):
            self.session.trust_env = False  # a proxy from the environment does not reach this machine

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        parts = urlsplit(url)
        target = urlunsplit((self._scheme, self._netloc, self._prefix + parts.path, parts.query, ""))
        try:
            response = super().request(method, target, *args, **kwargs)
            self.last.retry_after_s = parse_retry_after((response.headers or {}).get("Retry-After", ""), time.time())
            return response
        finally:
            # the SDK keeps the last request for its own tests, credentials included
            self._test_only_last_request = None
            self._test_only_last_response = None

    def open(self, path: str, auth: tuple[str, str], *, channels: int, start: int) -> requests.Response:
        """Request a recording's media from byte `start` on; its body is read by the caller."""
        url = urlunsplit((self._scheme, self._netloc, self._prefix + path, "", ""))
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        params = {"RequestedChannels": "2"} if channels == 2 else {}  # Twilio refuses it for a mono recording: 16113
        session: requests.Session = self.session
        return session.get(url, params=params, headers=headers, auth=auth, stream=True, timeout=self.timeout)


class CallRequest(NamedTuple):
    """A call that Twilio is to place. `amd_url` receives the verdict about an answering machine; empty: none is wanted."""

    to: str
    caller: str
    url: str
    status_url: str
    amd_url: str = ""
    ring_s: int = 60


class CallStatus(NamedTuple):
    """A call's status at Twilio, its verdict about an answering machine, and its final length."""

    status: str
    answered_by: str
    duration_s: int | None


class Media(NamedTuple):
    """A recording's audio under way: the byte of the first chunk, the whole size, the chunks."""

    start: int
    total: int
    chunks: Iterator[bytes]


class TwilioRest:
    """Requests for one account. Each returns Twilio's result or raises RestError, within `bound_s`."""

    def __init__(self, config: Config, account: Account) -> None:
        self._http = _Http(config.twilio.api_base, config.twilio.timeout_s)
        self._client = Client(account.sid, account.secrets.twilio_auth_token, http_client=self._http)
        self.bound_s = 2 * config.twilio.timeout_s + _MARGIN_S
        self._recordings("CA" + "0" * 32)  # imports the resource classes now: 70 ms that would delay a call

    def start_recording(self, call_sid: str, *, channels: str, status_callback: str) -> Started:
        """Create a recording of a live call. Not idempotent: after `timeout` or `server`, list before creating again.

        An empty `status_callback` requests no callbacks. Raises RestError.
        """
        options: dict[str, Any] = {"recording_channels": channels}
        if status_callback:
            options["recording_status_callback"] = status_callback
            options["recording_status_callback_method"] = "POST"
            options["recording_status_callback_event"] = ["in-progress", "completed", "absent"]
        recording = self._bounded(lambda: self._recordings(call_sid).create(**options))
        if not isinstance(recording.sid, str) or not recording.sid:
            raise RestError("timeout", 0, 201, "the answer names no recording")
        return Started(sid=recording.sid, status=str(recording.status or ""))

    def list_recordings(self, call_sid: str) -> list[Listed]:
        """List the recordings of a call, newest first. Raises RestError."""
        found = self._bounded(lambda: self._recordings(call_sid).list(limit=MAX_LISTED, page_size=MAX_LISTED))
        return [
            Listed(
                sid=str(entry.sid or ""),
                status=str(entry.status or ""),
                source=str(entry.source or ""),
                channels=parse_count(entry.channels) or 0,
                duration_s=-1 if (duration_s := parse_count(entry.duration)) is None else duration_s,
                error_code=parse_count(entry.error_code) or 0,
            )
            for entry in found
        ]

    def set_recording(
        self, call_sid: str, *, status: Literal["paused", "in-progress"], bound_s: float, recording_sid: str = CURRENT
    ) -> None:
        """Pause a recording, silence in place of the time, or let it continue. Raises RestError.

        Source: Twilio API, "Update a Recording resource"; PauseBehavior.
        """
        options = {"pause_behavior": "silence"} if status == "paused" else {}
        self._bounded(lambda: self._client.calls(call_sid).recordings(recording_sid).update(status=status, **options), bound_s)

    def delete_recording(self, recording_sid: str) -> None:
        """Delete a recording with its audio. Raises RestError, of kind `gone` for an unknown one."""
        self._bounded(lambda: self._client.recordings(recording_sid).delete())

    @contextmanager
    def media(self, recording_sid: str, *, channels: int, start: int) -> Iterator[Media]:
        """Open the audio of a finished recording, as WAV, from byte `start` on. Raises RestError, also while it is read.

        Source: Twilio API, "Fetch a Recording's media file"; RFC 9110 14.
        """
        path = f"/2010-04-01/Accounts/{self._client.account_sid}/Recordings/{recording_sid}.wav"
        try:
            with within(MEDIA_S), self._http.open(path, self._client.auth, channels=channels, start=start) as response:
                if response.status_code not in (200, 206, 416):
                    raise self._media_refusal(response)
                yield _media_of(response, start)
        except OutOfTimeError:
            raise RestError("timeout", 0, 0, f"the download took longer than {MEDIA_S:g} s") from None
        except requests.RequestException as error:
            raise _transport(error) from error

    def create_call(self, request: CallRequest) -> str:
        """Call a number; once it is answered, Twilio requests `url`. Returns the call's SID.

        Not idempotent: after `timeout` or `server` the phone may ring. Raises RestError.
        """
        options: dict[str, Any] = {
            "to": request.to,
            "from_": request.caller,
            "url": request.url,
            "method": "POST",
            "status_callback": request.status_url,
            "status_callback_method": "POST",
            "status_callback_event": ["completed"],
            "timeout": request.ring_s,
        }
        if request.amd_url:
            options["machine_detection"] = "DetectMessageEnd"
            options["async_amd"] = "true"
            options["async_amd_status_callback"] = request.amd_url
            options["async_amd_status_callback_method"] = "POST"
        call = self._bounded(lambda: self._client.calls.create(**options))
        if not isinstance(call.sid, str) or not call.sid:
            raise RestError("timeout", 0, 201, "the answer names no call")
        return call.sid

    def list_calls(self, to: str, caller: str, since: float) -> list[str]:
        """List the calls to a number since an epoch time, newest first. Raises RestError."""
        found = self._bounded(lambda: self._client.calls.list(to=to, from_=caller, limit=MAX_LISTED, page_size=MAX_LISTED))
        return [str(one.sid) for one in found if one.sid and _created_at(one) >= since - CLOCK_S]

    def fetch_call(self, call_sid: str) -> CallStatus:
        """Return a call's status. Raises RestError."""
        call = self._bounded(lambda: self._client.calls(call_sid).fetch())
        return CallStatus(str(call.status or ""), str(call.answered_by or ""), parse_count(call.duration))

    def complete_call(self, call_sid: str) -> str:
        """End a live call. Returns the call's status in Twilio's answer. Raises RestError."""
        call = self._bounded(lambda: self._client.calls(call_sid).update(status="completed"))
        return str(call.status or "")

    def redirect_call(self, call_sid: str, document: str, *, bound_s: float) -> None:
        """Continue a live call with this TwiML. After `timeout` Twilio may have done so. Raises RestError."""
        self._bounded(lambda: self._client.calls(call_sid).update(twiml=document), bound_s)

    def _recordings(self, call_sid: str) -> Any:
        return self._client.calls(call_sid).recordings

    def _bounded(self, request: Any, bound_s: float | None = None) -> Any:
        """Run one request within the bound; raises every failure as a RestError."""
        bound_s = self.bound_s if bound_s is None else min(bound_s, self.bound_s)
        try:
            with within(bound_s):
                return request()
        except OutOfTimeError:  # the request may have reached Twilio
            raise RestError("timeout", 0, 0, f"no answer within {bound_s:g} s") from None
        except TwilioRestException as error:
            raise self._refusal(error.status, error.code, error.msg) from error
        except TwilioServiceException as error:
            raise self._refusal(error.status, error.code, error.detail or error.title) from error
        except requests.RequestException as error:
            raise _transport(error) from error
        except TwilioException as error:
            raise self._page_refusal(error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # a success status with an unexpected body: the SDK raises any of these
            raise RestError("timeout", 0, 0, f"an answer that cannot be read: {error}") from error

    def _refusal(self, status: object, code: object, text: object) -> RestError:
        """The error for a refusal. Without a JSON body the SDK repeats the status as the code."""
        status_number, code_number = parse_count(status) or 0, parse_count(code) or 0
        if code_number == status_number:
            code_number = 0
        kind = classify(status_number, code_number)
        return RestError(kind, code_number, status_number, str(text or ""), self._http.last.retry_after_s)

    def _media_refusal(self, response: requests.Response) -> RestError:
        """The error for a refused download."""
        self._http.last.retry_after_s = parse_retry_after(response.headers.get("Retry-After", ""), time.time())
        return self._refusal(response.status_code, *_refusal_of(response.raw.read(_REFUSAL_BYTES), "the download was refused"))

    def _page_refusal(self, error: TwilioException) -> RestError:
        """The error for a refused listing: the SDK passes the raw answer beside its message."""
        answer = error.args[1] if len(error.args) > 1 else None
        status = parse_count(getattr(answer, "status_code", None)) or 0
        if not status or status == 200:
            return RestError("timeout", 0, status, f"an answer that cannot be read: {error.args[0] if error.args else error}")
        return self._refusal(status, *_refusal_of(str(getattr(answer, "text", "")), "the listing was refused"))


class _RefusalBody(msgspec.Struct, frozen=True):
    """A refusal's JSON, in Twilio's older and newer shape."""

    code: int = 0
    message: str = ""
    title: str = ""


def _refusal_of(text: str | bytes, otherwise: str) -> tuple[int, str]:
    """Return Twilio's number and sentence in a refusal's body; 0 and `otherwise` without them."""
    try:
        body = msgspec.json.decode(text, type=_RefusalBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        body = _RefusalBody()
    return body.code, body.message or body.title or otherwise


def _media_of(response: requests.Response, start: int) -> Media:
    """The audio in an answer to a request from byte `start` on. Raises RestError for one without a length."""
    status, headers = response.status_code, response.headers
    if status == 200:
        total = parse_count(headers.get("Content-Length", ""))
        if total is None:
            raise RestError("timeout", 0, status, "the recording has no length")
        return Media(0, total, response.iter_content(_CHUNK_BYTES))
    span, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    total = parse_count(whole)
    if status == 416 and total is not None:  # nothing is left to read
        return Media(start if total == start else 0, total, iter(()))
    if status == 206 and total is not None and parse_count(span.partition("-")[0]) == start:
        return Media(start, total, response.iter_content(_CHUNK_BYTES))
    raise RestError("timeout", 0, status, f"an unexpected part of the recording: {headers.get('Content-Range', '')[:80]!r}")


def _created_at(call: Any) -> float:
    """Return when a call was created, epoch seconds; infinite if Twilio does not report it."""
    created = getattr(call, "date_created", None)
    return created.timestamp() if isinstance(created, datetime) else math.inf


def _transport(error: requests.RequestException) -> RestError:
    """The error for a request without an answer: `unreachable` only if nothing can have been sent."""
    host = urlsplit(str(getattr(error.request, "url", "") or "")).netloc or "Twilio"
    why = "the connection failed"
    seen: BaseException | None = error
    for _ in range(10):  # the chain of causes is short; the bound guards against a cycle
        if seen is None:
            break
        if isinstance(seen, ssl.SSLCertVerificationError):
            return _unreachable(host, f"its certificate is not valid ({seen.verify_message})")
        if isinstance(seen, NameResolutionError):
            return _unreachable(host, "its name has no address")
        if isinstance(seen, ConnectTimeoutError | ConnectionRefusedError):  # the first is also any failed connect
            cause = seen.__cause__ or seen
            return _unreachable(host, text_of(cause) if isinstance(cause, OSError) and cause.strerror else "no answer in time")
        if isinstance(seen, OSError) and seen.strerror:
            why = text_of(seen)
        elif isinstance(seen, TimeoutError | requests.Timeout):
            why = "no answer in time"
        reason = getattr(seen, "reason", None)
        inner = seen.args[0] if seen.args else None
        seen = next((e for e in (reason, inner, seen.__cause__, seen.__context__) if isinstance(e, BaseException)), None)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | requests.exceptions.MissingSchema):
        return RestError("rejected", 0, 0, str(error))
    return RestError("timeout", 0, 0, f"{host}: {why}")


def _unreachable(host: str, why: str) -> RestError:
    return RestError("unreachable", 0, 0, f"no connection to {host}, {why}; check twilio.api_base and the network")
