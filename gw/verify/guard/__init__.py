"""Proof that a call is recorded and a tool called once, and secrets stay unheard: models, with every order and fault.

check            the scenarios, and the report
model            the steps of workers and the bus, time, and the invariants
control_steps    the steps of control, its store, Twilio and the webhooks
fault_steps      the faults that are not an answer: deaths, losses, delays
state            the model's states
parts            questions to the production code
claim_row        the claim row, with the store's own SQL
jobs             the model of one job: worker, bus, control, row and endpoint
pauses           the model of the pauses of a recording: worker, control, operator, disk and Twilio
pause_parts      questions to the production code about a pause
job_parts        questions to the production code about a job
"""
