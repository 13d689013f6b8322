"""Links of the gateway, broken by order.

proxy     process between the gateway and its peers, on every link
passage   one connection through the proxy: latency, rate, stall, cut, reset
bus_tap   events of the workers, read from the bus
ai        process of the AI, with scripts from a seed
orders    JSON lines to these processes
"""
