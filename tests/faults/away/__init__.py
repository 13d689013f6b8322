"""Calls that leave their stream and return while processes are killed.

plan    what each call does, drawn from a seed; pure
calls   runs the calls, and writes what both sides saw
laws    conditions that must hold afterwards; pure
"""
