"""Dashboard *One call*: all rows the store has of one call, and a list of calls to choose from.

Metrics deliberately have no call SID, so this dashboard reads the store. It needs MySQL or MariaDB; with SQLite,
`gateway.py calls show` prints the same.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, call_dashboard
from metrics.dashboards.panels import rows

_SECONDS: Final = dict.fromkeys(("send p99.9", "send max", "lateness p99", "lateness max", "longest hold"), "s")
_MILLISECONDS: Final = dict.fromkeys(
    ("underrun", "first word", "heard", "at", "asked after", "waited", "pause", "ai", "tools", "gateway"), "ms"
)
#: Width of a time with its date.
_TIME_PX: Final = 200
_HERE: Final = "/d/submilli-call?var-call_sid=${__data.fields.call}&${__url_time_range}"
#: The recording itself. Twilio asks for the account's credentials, unless the console allows public media.
_MEDIA: Final = ("Listen at Twilio", "${__data.fields.url}.mp3")
_SELECT: Final = ("Select this call", _HERE)
#: Causes for a complaint, by the limits of `gateway.py calls explain`.
_VERDICT: Final = """
    CASE WHEN c.ended_at IS NULL THEN 'live' ELSE COALESCE(NULLIF(CONCAT_WS(', ',
        CASE WHEN q.frames_sent = 0 THEN 'silence' END,
        CASE WHEN q.first_audio_ms > 2000 THEN 'slow greeting' END,
        CASE WHEN q.underrun_ms > 0 THEN 'gaps' END,
        CASE WHEN c.result <> 'success' THEN c.reason END,
        CASE WHEN r.state IN ('failed', 'absent') THEN 'recording' END), ''), 'good') END
"""
_JOINED: Final = """
    calls c LEFT JOIN call_quality q ON q.call_sid = c.call_sid LEFT JOIN recordings r ON r.call_sid = c.call_sid
"""


def one_call() -> dashboard.Dashboard:
    """Build the dashboard."""
    return call_dashboard(
        "call",
        "One call",
        "All the store has of one call. Choose a call below, or paste its SID above.",
        [("Calls", [_worst()]), ("Selected call", _chosen())],
    )


def _worst() -> AnyPanel:
    return rows(
        "Calls, worst first",
        "Calls started in the selected time range: those with gaps first, then by their latest frame. Click a call to select it, "
        "its recording to listen.",
        f"""
        SELECT c.call_sid AS 'call', {_VERDICT} AS 'verdict', c.started_at AS 'started',
               TIMESTAMPDIFF(SECOND, c.started_at, c.ended_at) AS 'length', c.agent, c.reason, q.underrun_ms AS 'underrun',
               q.lateness_max_s AS 'lateness max', q.first_audio_ms AS 'first word', q.bargeins AS 'barge-ins',
               r.state AS 'recording', r.url
        FROM {_JOINED}
        WHERE $__timeFilter(c.started_at)
        ORDER BY q.underrun_ms DESC, q.lateness_max_s DESC LIMIT 1000
        """,
        height=10,
        units={**_SECONDS, **_MILLISECONDS, "length": "s"},
        widths={"call": 330, "verdict": 190, "started": _TIME_PX, "length": 70, "reason": 150},
        links={"call": _SELECT, "verdict": _SELECT, "recording": _MEDIA},
        hidden=("url",),
    )


def _chosen() -> list[AnyPanel]:
    return [
        rows(
            "Verdict",
            "What the caller had cause to complain about, by the limits of `gateway.py calls explain`, which has the sentences. "
            "Click the recording to listen.",
            f"""
            SELECT {_VERDICT} AS 'verdict', r.state AS 'recording',
                   CONCAT('gateway.py calls explain ', c.call_sid) AS 'explained by', r.url
            FROM {_JOINED} WHERE c.call_sid = ${{call_sid:sqlstring}}
            """,
            height=4,
            links={"recording": _MEDIA},
            hidden=("url",),
        ),
        rows(
            "Call",
            "Times, agent, host, and the reason of its end.",
            """
            SELECT started_at AS 'started', answered_at AS 'answered', first_audio_at AS 'first audio', ended_at AS 'ended',
                   agent, direction, result, reason, detail, host, worker
            FROM calls WHERE call_sid = ${call_sid:sqlstring}
            """,
            height=5,
            widths=dict.fromkeys(("started", "answered", "first audio", "ended"), _TIME_PX)
            | {"reason": 150, "detail": 200, "worker": 70},
        ),
        rows(
            "Audio",
            "Measured on this call's own frames. The longest hold is the worker's during the call.",
            """
            SELECT frames_sent AS 'frames sent', frames_expected AS 'expected', underrun_ms AS 'underrun',
                   send_p999_s AS 'send p99.9', send_max_s AS 'send max', lateness_p99_s AS 'lateness p99',
                   lateness_max_s AS 'lateness max', hub_hold_max_s AS 'longest hold', bargeins AS 'barge-ins',
                   first_audio_ms AS 'first word'
            FROM call_quality WHERE call_sid = ${call_sid:sqlstring}
            """,
            height=4,
            units={**_SECONDS, **_MILLISECONDS},
        ),
        rows(
            "Recording",
            "Its outcome, with a link to it. After a failure: the gateway's reason, and Twilio's error code and text.",
            """
            SELECT state, recording_sid, started_at AS 'started', trigger_ms AS 'asked after', attempts, duration_s AS 'length',
                   reason, error_code, error_text, url
            FROM recordings WHERE call_sid = ${call_sid:sqlstring}
            """,
            height=5,
            units={**_MILLISECONDS, "length": "s"},
            widths={"recording_sid": 330, "started": _TIME_PX, "error_text": 300},
            links={"recording_sid": _MEDIA},
            hidden=("url",),
        ),
        rows(
            "Answers",
            "How long the caller waited for each answer, and for what.",
            """
            SELECT at AS 'time', JSON_EXTRACT(data, '$.ms') + 0 AS 'waited', JSON_EXTRACT(data, '$.pause_ms') + 0 AS 'pause',
                   JSON_EXTRACT(data, '$.ai_ms') + 0 AS 'ai', JSON_EXTRACT(data, '$.tool_ms') + 0 AS 'tools',
                   JSON_EXTRACT(data, '$.gateway_ms') + 0 AS 'gateway'
            FROM events WHERE call_sid = ${call_sid:sqlstring} AND kind = 'answered' ORDER BY at, n
            """,
            height=6,
            units=_MILLISECONDS,
        ),
        rows(
            "Transcript",
            "Turns in order of time. `heard` is the part of an interrupted answer that the caller heard.",
            """
            SELECT start_ms AS 'at', role, text, interrupted, heard_ms AS 'heard'
            FROM turns WHERE call_sid = ${call_sid:sqlstring} ORDER BY start_ms, n
            """,
            height=12,
            units=_MILLISECONDS,
            widths={"at": 90, "role": 80, "interrupted": 100, "heard": 90},
        ),
        rows(
            "Events",
            "Events of the call in order of time.",
            "SELECT at AS 'time', kind, data FROM events WHERE call_sid = ${call_sid:sqlstring} ORDER BY at, n",
            height=12,
            widths={"time": _TIME_PX, "kind": 170},
        ),
    ]
