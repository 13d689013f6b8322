"""Bench: measure a gateway, or the floor, under the load of two processes that play telephones and AI.

run               one measurement from start to end
ramp, growth      a growing number of calls
subject           the gateway or the floor under measurement
gateway_process   a gateway as a child process, for demo and tests too
load_process      a load process as a child process
load/             the load processes themselves
machine           CPU time, memory and affinity, from /proc
certificate       TLS certificate of the AI
result            figures of a window, and whether they are valid
histogram         latency histograms of a metrics page
report, pictures  tables, documents and pictures
"""
