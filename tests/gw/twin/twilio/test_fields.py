"""gw.twin.twilio.fields: form fields of the three kinds of webhooks."""

from __future__ import annotations

from gw.twin.twilio.fields import call_fields, rfc2822, status_fields, stream_fields


def test_every_webhook_has_the_calls_fields() -> None:
    fields = call_fields("AC1", "CA1", "+15005550006", "+15005550001", "ringing")
    assert (fields["CallSid"], fields["CallStatus"], fields["From"], fields["Called"]) == (
        "CA1",
        "ringing",
        "+15005550006",
        "+15005550001",
    )
    assert (fields["FromCity"], fields["ToCountry"]) == ("", "US")


def test_started_minutes_are_billed() -> None:
    assert status_fields("completed", 61, 0.0)["Duration"] == "2"
    assert status_fields("completed", 61, 0.0)["CallDuration"] == "61"
    assert status_fields("busy", 0, 0.0)["SipResponseCode"] == "486"


def test_a_streams_status_has_an_error_only_if_it_failed() -> None:
    fields = stream_fields("AC1", "CA1", "MZ1", "", "stream-started", "", 0.0)
    assert (fields["StreamName"], fields["Timestamp"]) == ("MZ1", "1970-01-01T00:00:00.000Z")
    assert "StreamError" not in fields
    assert stream_fields("AC1", "CA1", "MZ1", "name", "stream-error", "refused", 0.0)["StreamError"] == "refused"


def test_times_are_in_the_format_of_rest() -> None:
    assert rfc2822(0.0) == "Thu, 01 Jan 1970 00:00:00 +0000"
