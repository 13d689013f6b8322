"""Facts about each call, and control's reactions to a stream's or a call's end.

registry            every call: its owner, its end, what a stream that resumes it must know
after_stream        answers a worker whose stream ended or resumed: the next step for the call, and its conversation so far
left_calls          answers a worker about a call that left its stream for a transfer or digits
status_callbacks    acts on what Twilio reports: the end of a call, the status of a recording, an error of a stream
lost_calls          ends the calls of workers that are gone
"""
