"""The gevent hub of a worker: waits, and what holds it.

clock         TX's wait and AI-out's alarm
gc_control    collections of garbage only while no call lives
greenlets     greenlets with a kind
hold_monitor  measures holds of the hub, with stacks of the long ones
"""
