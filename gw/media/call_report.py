"""What is told of a call once it is over: what was heard of its last words, how well it went, and why it ended.

Its greenlets are gone by then, so nothing of it changes any more. Never decides how a call ends.
"""

from __future__ import annotations

import logging
from typing import Final

from gw import bus
from gw.call.quality import Quality
from gw.call.state import Reason, result_of
from gw.media.call import Call

log = logging.getLogger(__name__)

_MS: Final = 1000.0


def report(call: Call) -> None:
    """The call is over and its greenlets are gone: tell control how it went."""
    reason = call.state.reason or Reason.INTERNAL_ERROR
    heard = call.pacer.heard_frames(call.ended_s)
    unheard = {item_id for item_id, _ in call.playout.unheard(heard)}
    heard_ms = {item_id: call.playout.heard_ms(item_id, heard) for item_id in call.turns.unresolved_items()}
    call.report_turns(call.turns.on_end(heard_ms, unheard))
    call.uplink.on_end()
    left = call.playout.clear(call.pacer.sent_frames)
    call.context.cells.dropped["call_ended"].add(left)
    call.context.cells.ended[reason].add()
    result = result_of(reason)
    call.events.emit(bus.CallEnded(call.sid, call.ended_at, reason, result, call.detail[:500], _quality(call, left)))
    level = logging.INFO if result == "success" else logging.WARNING
    log.log(level, "call ended: %s", call.detail or reason, extra={"call_sid": call.sid, "reason": reason.value})


def _quality(call: Call, left_frames: int) -> Quality:
    send, lateness, tx = call.tx.send, call.tx.lateness, call.tx
    dropped = {"bargein": call.bargein_dropped, "overrun": call.playout.overrun_frames, "call_ended": left_frames}
    return Quality(
        frames_sent=tx.frames_sent,
        frames_expected=call.playout.expected_frames,
        send_p50_s=send.percentile_s(0.5),
        send_p99_s=send.percentile_s(0.99),
        send_p999_s=send.percentile_s(0.999),
        send_max_s=send.max_s,
        lateness_p50_s=lateness.percentile_s(0.5),
        lateness_p99_s=lateness.percentile_s(0.99),
        lateness_p999_s=lateness.percentile_s(0.999),
        lateness_max_s=lateness.max_s,
        underrun_ms=round(call.pacer.underrun_s * _MS),
        dropped_frames={why: frames for why, frames in dropped.items() if frames},
        uplink_dropped_frames=call.uplink.dropped,
        bargeins=call.bargein.count,
        first_audio_ms=round((tx.first_audio_s - call.started_s) * _MS) if tx.first_audio_sent else -1,
        ai_first_audio_ms=call.ai_first_audio_ms,
        hub_hold_max_s=call.context.hold_max_s(call.started_s),
    )
