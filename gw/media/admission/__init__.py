"""Admission of calls, shared by the workers of a machine.

budget_board  money left of the limits that calls share
overload      detects a worker that sends frames late
shared_lock   lock between workers that never blocks a hub
slots         slots of the machine, and which worker accepts a connection
token_ledger  one-time tokens that were used, and webhooks that were answered
"""
