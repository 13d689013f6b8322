"""Dashboard *One call*: all rows the store has of one call, and a list of calls to choose from.

Metrics deliberately have no call SID, so this dashboard reads the store. It needs MySQL or MariaDB; with SQLite,
`gateway.py calls show` prints the same.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.assemble import AnyPanel, call_dashboard
from metrics.dashboards.panels import rows

_SECONDS = dict.fromkeys(("send p99.9", "send max", "lateness p99", "lateness max", "longest hold"), "s")
_MILLISECONDS = dict.fromkeys(("underrun", "first word", "heard", "at", "asked after"), "ms")
_HERE = "/d/submilli-call?var-call_sid=${__value.raw}&${__url_time_range}"


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
        "Calls started in the selected time range: those with gaps first, then by their latest frame. Click a call to select it.",
        """
        SELECT c.call_sid AS 'call', c.started_at AS 'started', TIMESTAMPDIFF(SECOND, c.started_at, c.ended_at) AS 'length',
               c.agent, c.reason, q.underrun_ms AS 'underrun', q.lateness_p99_s AS 'lateness p99',
               q.lateness_max_s AS 'lateness max', q.send_max_s AS 'send max', q.first_audio_ms AS 'first word',
               q.bargeins AS 'barge-ins', r.state AS 'recording'
        FROM calls c LEFT JOIN call_quality q ON q.call_sid = c.call_sid LEFT JOIN recordings r ON r.call_sid = c.call_sid
        WHERE $__timeFilter(c.started_at)
        ORDER BY q.underrun_ms DESC, q.lateness_max_s DESC LIMIT 200
        """,
        height=10,
        units={**_SECONDS, **_MILLISECONDS, "length": "s"},
        widths={"call": 300, "started": 190, "reason": 140},
        link=("call", _HERE),
    )


def _chosen() -> list[AnyPanel]:
    return [
        rows(
            "Call",
            "Times, agent, host, and the reason of its end.",
            """
            SELECT started_at AS 'started', answered_at AS 'answered', first_audio_at AS 'first audio', ended_at AS 'ended',
                   agent, direction, result, reason, detail, host, worker
            FROM calls WHERE call_sid = ${call_sid:sqlstring}
            """,
            height=4,
            widths={"detail": 240, "host": 160, "worker": 80, "direction": 100},
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
            "Its outcome. After a failure: the gateway's reason, and Twilio's error code and text.",
            """
            SELECT state, recording_sid, started_at AS 'started', trigger_ms AS 'asked after', attempts, duration_s AS 'length',
                   reason, error_code, error_text
            FROM recordings WHERE call_sid = ${call_sid:sqlstring}
            """,
            height=4,
            units={**_MILLISECONDS, "length": "s"},
            widths={"recording_sid": 300, "reason": 140, "error_text": 400},
        ),
        rows(
            "Transcript",
            "Turns in order of time. `heard` is the part of an interrupted answer that the caller heard.",
            """
            SELECT start_ms AS 'at', role, text, interrupted, heard_ms AS 'heard'
            FROM turns WHERE call_sid = ${call_sid:sqlstring} ORDER BY start_ms, n LIMIT 500
            """,
            span=14,
            height=10,
            units=_MILLISECONDS,
            widths={"at": 90, "role": 80, "text": 520, "interrupted": 100, "heard": 90},
        ),
        rows(
            "Events",
            "Events of the call in order of time.",
            "SELECT at AS 'time', kind, data FROM events WHERE call_sid = ${call_sid:sqlstring} ORDER BY at, n LIMIT 500",
            span=10,
            height=10,
            widths={"time": 190, "kind": 150},
        ),
    ]
