"""REST API of the Twilio twin.

server        HTTP server: authentication, routing, faults on request
resources     operations on calls and recordings
recording     one recording and its callback
"""
