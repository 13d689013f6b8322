"""The latency budget, judged from a bench on this machine.

judge: verdicts from a bench summary.
timer_noise: the machine's own lateness.
html: report page.
"""
