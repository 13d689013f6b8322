"""Recording of each call, exactly once, across crashes, retries and hosts.

lifecycle    the state machine of one recording, pure
recorder     takes the machine's actions: claims, asks Twilio, retries
claims       claims made while the store is away, kept in the spool
pauses       pauses while the caller types sensitive digits, and by an operator
rows         writes outcomes into recording rows, and counts them
reconcile    finds unsettled rows that no greenlet works on
service      construction of these parts
"""
