"""Tools and events of calls while processes are killed.

kills   runs calls with three tools each, and counts at the endpoints
laws    conditions that must hold afterwards; pure
"""
