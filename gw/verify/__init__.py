"""Proofs of the gateway's promises, run on this machine by `gateway.py verify`.

purity: the TX loop can only do what the allow-list permits.
guard: one recording in every order of events, deaths and outages.
budget: the latency promises, measured under load.
"""
