"""Requests to the user's own HTTPS endpoints.

addresses   resolves a host, and refuses addresses that are not public or allowed
circuit     holds requests back from an endpoint that fails; pure
places      bounds on connections and on waiting requests
wire        one connection as urllib3 uses it: bounded, and its address checked
client      signs and sends a request within a deadline
tools       calls of tools: arguments, attempts, the output for the AI
routes      the question who answers a call: attempts, the decision
trial       one request for a person who looks at it
"""
