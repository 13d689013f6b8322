"""Seeded conversations with faults of both legs, and laws over what was heard.

    .venv/bin/python -m tests.calls.conversations [--calls 80] [--seed 1] [--at-once 20] [--interrupted] [--show]

scripts     pure: a seed becomes the caller's steps, the AI's scripts and their faults
laws        pure: what must hold of every conversation, whatever its faults
run         places conversations on one gateway in this process
command     command line: progress, then a table of the broken laws; exit code 1 if there are any
"""
