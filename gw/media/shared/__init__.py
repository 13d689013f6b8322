"""Parts that all calls of one worker share.

context       configuration, cells of the shared page, pool, TLS context
greetings     recorded greetings, read once
routing       routes: which one a call takes, and its agent's variables
"""
