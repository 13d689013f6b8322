"""The admin socket: JSON lines on a private Unix socket.

client        sends one command
server        reads lines, runs commands, sends answers
commands      calls, recordings and poison
machine       capacity, drain and reload of the whole machine
log_levels    log levels of running processes
"""
