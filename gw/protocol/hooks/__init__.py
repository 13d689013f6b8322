"""Requests to a user's endpoints: tools, events and routes.

event            events of calls: their bodies
pause            jobs that pause a call's recording
route_call       who answers a call: the request, its answer
signature        Submilli-Signature, of requests to a user's endpoints
tool_call        requests to a user's tools, and their answers
"""
