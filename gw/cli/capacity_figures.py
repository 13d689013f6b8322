"""The numbers the capacity model rests on, each with what it was measured by, who states it, or that it is only assumed.

Nothing here is computed. Measured on the machine of tests/bench/README.md (2 cores at 2.6 GHz, Linux 6.18, Python 3.11); on other
machines run the command that is named, and judge.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Figure(NamedTuple):
    """One number. `kind`: measured here by the command in `source`, stated by others, or assumed."""

    value: float
    unit: str
    kind: Literal["measured", "stated", "assumed"]
    source: str


_BENCH: Final = "gateway.py bench --calls 200 --seconds 15 --floor --rounds 3"
_SCALE: Final = "tests/bench/bench_scale.py"
_VMS: Final = "tests/vms/run.py --calls 100"

FIGURES: Final[dict[str, Figure]] = {
    "calls_per_core": Figure(
        225, "calls", "stated", "server.max_calls_per_worker; bench growth held 300 at 87 % of a core, plain websockets"
    ),
    "media_cpu_ms": Figure(3.19, "ms of CPU per call and second", "measured", _BENCH),
    "call_kb": Figure(100, "KB per call", "measured", _BENCH),
    "worker_mb": Figure(25, "MB per worker", "measured", _SCALE),
    "control_mb": Figure(71, "MB of control", "measured", _SCALE),
    "webhook_worker_cpu_ms": Figure(0.57, "ms of a worker's CPU per webhook", "measured", _SCALE),
    "event_control_cpu_ms": Figure(0.9, "ms of control's CPU per event that comes alone", "measured", _SCALE),
    "recording_control_cpu_ms": Figure(
        2.2, "ms of control's CPU per REST request", "measured", "one request of the twilio package"
    ),
    "machine_bytes": Figure(
        79_000, "bytes per call and second through a gateway's network", "measured", f"{_VMS}: both legs, both ways, plain"
    ),
    "haproxy_cpu_ms": Figure(1.96, "ms of HAProxy's CPU per call and second", "measured", f"{_VMS} --tls"),
    "haproxy_kb": Figure(38, "KB of HAProxy's memory per call", "measured", f"{_VMS} --tls"),
    "store_events_per_s": Figure(
        11_800, "events/s from one spool into one MariaDB", "measured", f"{_SCALE}; batches of 200, nothing synced to disk"
    ),
    "store_cpu_ms": Figure(0.020, "ms of MariaDB's CPU per event", "measured", _SCALE),
    "store_bytes_per_call": Figure(9_450, "bytes in the store per call of 12 turns", "measured", _SCALE),
    "series_per_gateway": Figure(1244, "metrics series", "measured", _SCALE),
    "series_per_worker": Figure(4, "metrics series", "measured", _SCALE),
    "webhooks_per_call": Figure(
        5, "webhooks", "stated", "voice, stream started and stopped, status, recording: what the TwiML asks for"
    ),
    "events_beside_turns": Figure(8, "events per call", "stated", "start, first audio, recording, end, and four of the webhooks"),
    "scrape_s": Figure(15, "s between scrapes", "stated", "deploy/prometheus/prometheus.yml"),
    "prometheus_series": Figure(
        1_000_000, "series of one Prometheus", "assumed", "a server with 16 GB; measure head series against memory"
    ),
    "store_primary_share": Figure(
        0.25,
        "of the measured events/s",
        "assumed",
        "what a replicated primary that syncs each commit keeps; measure on its disks",
    ),
    "peak_arrivals": Figure(3, "times the mean", "assumed", "arrivals in the worst minute"),
}

#: What no machine of ours sets, and who says so.
LIMITS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "Twilio",
        "how many calls at once and how many new ones a second an account may have: no number is known here, ask",
        "not stated",
    ),
    ("Twilio", "a webhook is waited for 15 s, its connection 10 s; then the fallback URL", "Twilio, debugger code 11205"),
    (
        "Twilio",
        "REST answers 20429 when too many requests run at once: it is concurrency that counts, not the rate",
        "Twilio, error 20429",
    ),
    (
        "Twilio",
        "a media socket per call, opened from any public address to port 443; 10 minutes of audio buffered",
        "Twilio, Media Streams; 31931",
    ),
    ("AI", "a session ends after 60 minutes; the gateway replaces it before", "OpenAI, Realtime sessions"),
    (
        "AI",
        "how many sessions and tokens a minute: the account's own; each response tells what is left (rate_limits.updated)",
        "not stated",
    ),
    ("AI", "one TLS connection per call from the gateway: 28,000 ports per address and target", "Linux, ip_local_port_range"),
)
