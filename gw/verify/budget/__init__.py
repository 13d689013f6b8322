"""The latency budget, judged from a bench on this machine.

judge: verdicts from a bench summary.
chance: how many long holds the machine explains.
strangers: process of half-open heads, silent connections and a ping flood.
besieged: gateway with these strangers.
timer_noise: the machine's own lateness.
html: report page.
"""
