"""What the words of reasons mean to whoever reads about a call; deploy/reasons.md says more and what to look at."""

from __future__ import annotations

from typing import Final

from gw.call.state import Reason

#: Every reason a call can end for, or an AI leg be lost for. A test holds it to be all of them.
ENDINGS: Final[dict[str, str]] = {
    Reason.CALLER_HANGUP: "the caller hung up, or the call moved on at Twilio",
    Reason.AI_HANGUP: "the agent hung up, and its goodbye was heard",
    Reason.ADMIN_HANGUP: "an operator ended it, or somebody completed it by REST",
    Reason.IDLE_LIMIT: "nobody spoke for media.idle_limit_s",
    Reason.DURATION_LIMIT: "it lasted media.max_call_s",
    Reason.SHUTDOWN: "the gateway stopped, and the time for calls to end was over",
    Reason.START_TIMEOUT: "no start message came on the stream",
    Reason.WRONG_ACCOUNT: "the stream is of another Twilio account",
    Reason.TOKEN_MISSING: "the stream brought no token, so its TwiML is not ours",
    Reason.TOKEN_FORGED: "the stream's token is not ours: do all hosts share SUBMILLI_TOKEN_KEY?",
    Reason.TOKEN_EXPIRED: "the stream's token was too old: are the clocks right?",
    Reason.TOKEN_USED: "the stream's token was used before",
    Reason.UNKNOWN_AGENT: "no such agent is configured",
    Reason.PHONE_LOST: "Twilio's socket broke without a goodbye",
    Reason.PHONE_SILENT: "nothing came from Twilio for media.phone_silence_s",
    Reason.PHONE_LEG_STALLED: "Twilio did not read what it was sent",
    Reason.PHONE_BAD_JSON: "Twilio's side sent what is not JSON",
    Reason.PHONE_BAD_TYPE: "Twilio's side sent a field of the wrong type",
    Reason.PHONE_MISSING_FIELD: "Twilio's side left out a field",
    Reason.PHONE_BAD_UTF8: "Twilio's side sent text that is not UTF-8",
    Reason.PHONE_BAD_BASE64: "Twilio's side sent audio that is not base64",
    Reason.PHONE_BINARY_MESSAGE: "Twilio's side sent a binary message",
    Reason.PHONE_OVERSIZE_MESSAGE: "Twilio's side sent a message over the limit",
    Reason.PHONE_BAD_WEBSOCKET: "Twilio's side broke the websocket protocol",
    Reason.PHONE_MEDIA_BEFORE_START: "audio came before the stream's start",
    Reason.PHONE_SECOND_START: "the stream started twice",
    Reason.PHONE_WRONG_STREAM: "a message of another stream came",
    Reason.PHONE_WRONG_FORMAT: "the stream is not mu-law, 8 kHz, mono",
    Reason.AI_UNREACHABLE: "the AI could not be reached: name, connection or TLS",
    Reason.AI_REFUSED: "the AI refused the session: key, quota or model",
    Reason.AI_RATE_LIMITED: "the AI's rate limit was met",
    Reason.AI_TIMEOUT: "the AI was not ready within media.ai_connect_s",
    Reason.AI_CLOSED: "the AI closed the session",
    Reason.AI_LOST: "the AI's socket broke",
    Reason.AI_STALLED: "the AI began to answer, or was asked to, and said nothing for media.ai_stall_s",
    Reason.AI_LEG_STALLED: "the AI did not take the caller's audio",
    Reason.AI_BAD_JSON: "the AI sent what is not JSON",
    Reason.AI_BAD_TYPE: "the AI sent a field of the wrong type",
    Reason.AI_MISSING_FIELD: "the AI left out a field",
    Reason.AI_BAD_UTF8: "the AI sent text that is not UTF-8",
    Reason.AI_BAD_BASE64: "the AI sent audio that is not base64",
    Reason.AI_BINARY_MESSAGE: "the AI sent a binary message",
    Reason.AI_OVERSIZE_MESSAGE: "the AI sent a message over the limit",
    Reason.AI_BAD_WEBSOCKET: "the AI broke the websocket protocol",
    Reason.AI_WRONG_FORMAT: "the AI did not confirm mu-law both ways",
    Reason.FALLBACK_TRANSFER: "the AI failed for good, and the caller was handed on",
    Reason.FALLBACK_GOODBYE: "the AI failed for good, and the caller was told goodbye",
    Reason.INTERNAL_ERROR: "a part of the gateway failed: its log has the traceback",
    Reason.WORKER_LOST: "the worker died with the call",
}

#: The labels of gw_ai_reconnects_total.
REPLACED: Final[dict[str, str]] = {
    "expiring": "since the old one's hour was nearly over",
    "closed": "since the AI closed the old one",
    "lost": "since the old one's socket broke",
    "stalled": "since the old one stood still",
    "rate_limited": "since the old one was refused for its rate",
    "failed": "since the old one failed",
}

#: Words of ours in a recording's row.
RECORDING_TROUBLES: Final[dict[str, str]] = {
    "call_ended": "the call ended before Twilio made a recording",
    "recorded_twice": "Twilio has two recordings of this call",
    "gone": "Twilio has it no more",
    "absent": "Twilio made none, of silence say",
    "busy": "Twilio was asked too often",
    "server": "Twilio failed",
    "timeout": "Twilio did not answer in time",
    "unreachable": "Twilio could not be reached",
    "rejected": "Twilio refused it",
    "not_in_progress": "the call was not in progress for Twilio",
    "unauthorized": "Twilio did not accept the credentials",
    "no_credentials": "there are no Twilio credentials",
}
