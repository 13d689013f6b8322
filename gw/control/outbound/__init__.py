"""Calls that the gateway places from a list of numbers, each dial at most once.

list_file   parses a list: all errors, by line
plan        decisions: the result of a dial, retries, hours of the callee
service     dials the running lists at their pace, and settles what Twilio reports
"""
