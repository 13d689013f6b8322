"""Short explanations of reasons; deploy/reasons.md has longer ones and remedies."""

from __future__ import annotations

from typing import Final

from gw.call.state import Reason

#: The reasons of a call's end and of a lost AI leg. A test compares them with `Reason`.
ENDINGS: Final[dict[str, str]] = {
    Reason.CALLER_HANGUP: "the caller hung up, or the call continued elsewhere at Twilio",
    Reason.AI_HANGUP: "the agent hung up after its goodbye was played",
    Reason.ADMIN_HANGUP: "an operator ended it, or it was completed by REST",
    Reason.IDLE_LIMIT: "no speech for media.idle_limit_s, or after the idle prompts",
    Reason.DURATION_LIMIT: "it reached media.max_call_s",
    Reason.BUDGET: "a limit of [budget] was reached",
    Reason.MACHINE: "an answering machine or a fax machine took the outbound call",
    Reason.SHUTDOWN: "the gateway stopped or was reloaded, and the time for live calls was over",
    Reason.NO_STREAM: "Twilio could not open a stream, or its start was refused",
    Reason.START_TIMEOUT: "the stream sent no start message",
    Reason.WRONG_ACCOUNT: "the stream belongs to another Twilio account",
    Reason.TOKEN_MISSING: "the stream had no token: its TwiML is from another source",
    Reason.TOKEN_FORGED: "the stream's token was made on another machine, or for another call or agent: set server.machine",
    Reason.TOKEN_EXPIRED: "the stream's token has expired: are the clocks right?",
    Reason.TOKEN_USED: "the stream's token was used before",
    Reason.UNKNOWN_AGENT: "the agent is not configured",
    Reason.PHONE_LOST: "Twilio's socket broke without a stop message",
    Reason.PHONE_SILENT: "no message from Twilio for media.phone_silence_s",
    Reason.PHONE_LEG_STALLED: "Twilio did not read the audio sent to it",
    Reason.PHONE_BAD_JSON: "Twilio's side sent invalid JSON",
    Reason.PHONE_BAD_TYPE: "Twilio's side sent a field of the wrong type",
    Reason.PHONE_MISSING_FIELD: "Twilio's side left out a field",
    Reason.PHONE_BAD_UTF8: "Twilio's side sent invalid UTF-8",
    Reason.PHONE_BAD_BASE64: "Twilio's side sent audio in invalid base64",
    Reason.PHONE_BINARY_MESSAGE: "Twilio's side sent a binary message",
    Reason.PHONE_OVERSIZE_MESSAGE: "Twilio's side sent a message over the limit",
    Reason.PHONE_BAD_WEBSOCKET: "Twilio's side broke the websocket protocol",
    Reason.PHONE_FRAME_FLOOD: "Twilio's side sent a flood of control frames or small fragments",
    Reason.PHONE_MESSAGE_FLOOD: "Twilio's side sent a flood of messages",
    Reason.PHONE_MEDIA_BEFORE_START: "audio arrived before the stream's start",
    Reason.PHONE_SECOND_START: "the stream started twice",
    Reason.PHONE_WRONG_STREAM: "a message of another stream arrived",
    Reason.PHONE_WRONG_FORMAT: "the stream is not mu-law, 8 kHz, mono",
    Reason.AI_UNREACHABLE: "the AI could not be reached: DNS, connection or TLS",
    Reason.AI_REFUSED: "the AI refused the session: key, quota or model",
    Reason.AI_RATE_LIMITED: "the AI's rate limit was exceeded",
    Reason.AI_TIMEOUT: "the AI was not ready within media.ai_connect_s",
    Reason.AI_CLOSED: "the AI closed the session",
    Reason.AI_LOST: "the AI's socket broke",
    Reason.AI_STALLED: "the AI sent no audio for media.ai_stall_s in a response or after a request for one",
    Reason.AI_LEG_STALLED: "the AI did not read the caller's audio",
    Reason.AI_NO_ANSWER: "the AI ended response after response without a word",
    Reason.AI_BAD_JSON: "the AI sent invalid JSON",
    Reason.AI_BAD_TYPE: "the AI sent a field of the wrong type",
    Reason.AI_MISSING_FIELD: "the AI left out a field",
    Reason.AI_BAD_UTF8: "the AI sent invalid UTF-8",
    Reason.AI_BAD_BASE64: "the AI sent audio in invalid base64",
    Reason.AI_BINARY_MESSAGE: "the AI sent a binary message",
    Reason.AI_OVERSIZE_MESSAGE: "the AI sent a message over the limit",
    Reason.AI_BAD_WEBSOCKET: "the AI broke the websocket protocol",
    Reason.AI_FRAME_FLOOD: "the AI sent a flood of control frames or small fragments",
    Reason.AI_WRONG_FORMAT: "the AI did not confirm mu-law in both directions",
    Reason.TRANSFERRED: "the caller was transferred to another party",
    Reason.DIGITS_SENT: "the call left its stream to send digits",
    Reason.FALLBACK_TRANSFER: "the AI failed permanently, and the caller was transferred",
    Reason.FALLBACK_GOODBYE: "the AI failed permanently, and the caller heard the goodbye",
    Reason.INTERNAL_ERROR: "a part of the gateway failed; the log has the traceback",
    Reason.WORKER_LOST: "the worker died with the call",
}

#: Ends of transfers.
TRANSFER_ENDS: Final[dict[str, str]] = {
    "completed": "the two were connected",
    "no-answer": "there was no answer",
    "busy": "the line was busy",
    "declined": "the callee did not accept it",
    "failed": "the number could not be reached",
    "canceled": "the caller hung up first",
}

#: The labels of gw_ai_reconnects_total.
REPLACED: Final[dict[str, str]] = {
    "expiring": "because the old session was about to expire",
    "closed": "because the AI closed the old session",
    "lost": "because the old session's socket broke",
    "stalled": "because the old session stalled",
    "rate_limited": "because the old session exceeded the rate limit",
    "failed": "because the old session failed",
}

#: The gateway's reasons in a recording's row.
RECORDING_TROUBLES: Final[dict[str, str]] = {
    "call_ended": "the call ended before Twilio started a recording",
    "call_over": "the caller hung up in the first moment",
    "recording_failed": "the recording failed at Twilio",
    "recorded_twice": "Twilio has two recordings of this call",
    "gone": "Twilio no longer has it",
    "absent": "Twilio made no recording, for example of silence",
    "busy": "Twilio rejected too many concurrent requests",
    "server": "Twilio had a server error",
    "timeout": "Twilio did not answer in time",
    "unreachable": "Twilio could not be reached",
    "rejected": "Twilio rejected the request",
    "not_in_progress": "the call was not in progress at Twilio",
    "unauthorized": "Twilio did not accept the credentials",
    "no_credentials": "no Twilio credentials are configured",
}
#: Why a call is not to be recorded: `by` of the event recording_off.
RECORDING_OFF: Final = {
    "no_credentials": "no Twilio credentials are configured",
    "disabled": "recording.enabled is false",
    "route": "its route has record = false",
    "agent": "its agent has recording = false",
    "variable": "its route's variable recording is false",
}
