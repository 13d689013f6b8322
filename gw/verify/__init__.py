"""Proofs of the gateway's promises, run on this machine by `gateway.py verify`.

purity: the TX loop can only do what the allow-list permits.
guard: one recording in every order of events, deaths and outages.
budget: the latency promises, measured under load.
conversation: the dialogue machine's rules, in every explored order of inputs.
explorer, scenario_report: the search through a model's states, for guard and conversation, and its report.
changes: defects put into the source, to show that a proof finds them.
"""
