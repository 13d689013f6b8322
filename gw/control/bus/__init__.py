"""Control's end of the bus to the media workers. `gw.bus` defines its messages.

server     spools and publishes the workers' events
link       queues and writes commands to one worker
workers    the connected workers, and the owner of each call
"""
