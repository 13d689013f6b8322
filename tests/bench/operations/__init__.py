"""Costs of single operations.

allow_list     operations of the TX loop, as listed in `gw/verify/purity/allow_list.py`
frames         the longest slice of the hub's time for each kind of websocket frame
jobs           waiting jobs: memory, the time to accept one more, the time of a turn
observations   the shared page's hot path
"""
