"""Side effects outside the gateway, whatever dies: tools that the AI calls, and events for the user's endpoints.

A job is a row of the spool's file before its worker is answered, and claimed there before its request is sent.

lifecycle   the states of a job, and what leads from one to the next
table       the table of jobs: its statements, within the spool's transactions
service     runs jobs in bounded pools, and sends their results
tool        jobs of kind `tool`: at most once
digits      sensitive digits that callers typed, in memory
event       jobs of the kind `event` and an endpoint: at least once, in sequence
leave       jobs of kind `leave`: transfers and digits, for which a call leaves its stream, at most once
route       jobs of kind `route`: the question who answers a call, once for each call
dial        jobs of kind `dial`: calls that Twilio places, at most once
"""
