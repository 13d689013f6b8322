"""Measurements of tools, first words and the client of users' endpoints.

own_time      the gateway's own time in a tool call, and the effect of a dead endpoint on lateness
first_words   a recorded greeting, and what a warm AI leg saves
connections   connections and memory while 10,000 jobs wait
"""
