"""Proof that the dialogue keeps its twelve rules, in every explored order of inputs.

| file | content |
|---|---|
| `state` | a state: the machine's fields, the truth about the parties; the rules' names |
| `model` | the steps of AI, caller, telephone, control and time |
| `laws` | the rules, applied to the machine's commands |
| `digits` | the truth about digits that a tool collects, and their rule |
| `check` | scenarios, assumptions, report |
| `mutants/` | defects put in on purpose, each of which a scenario must find: a table for each part of the machine |
"""
