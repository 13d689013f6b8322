"""Records of a run, and their judgement.

ledger   records of caller, Twilio, AI, bus and store for each call
laws     conditions that a ledger must meet; pure
report   tables, the ledger as JSON, a picture
"""
