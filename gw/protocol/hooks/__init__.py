"""Requests to a user's endpoints: tools and events.

event            events of calls: their bodies
signature        Submilli-Signature, of requests to a user's endpoints
tool_call        requests to a user's tools, and their answers
"""
