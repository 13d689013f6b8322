"""Cost of a call, and its limits.

usage          tokens and cost of a call
budget         limits on cost, and how a call stands
token_minute   tokens that the AI allows by the minute
"""
