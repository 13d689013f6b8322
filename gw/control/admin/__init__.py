"""The admin sockets: JSON lines on private Unix sockets, one of them read-only.

client        sends one command
server        reads lines, runs commands, sends answers
audit         records the acts of operators
commands      calls, recordings and poison
lists         lists of numbers to dial
hooks         events for the user's endpoints
machine       capacity, drain and reload of the whole machine
log_levels    log levels of running processes
"""
