"""Demo: a conversation between the twins through a real gateway, and whether the gateway kept its promises.

run      callers, agents and the gateway between them
report   summary, table and picture
"""
