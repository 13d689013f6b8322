"""Commands that run a gateway, and those that ask or change the running one.

serve processes         the supervisor, and its children
status top              the state of the running gateway
drain loglevel reload   change it
audit                   what operators did
"""
