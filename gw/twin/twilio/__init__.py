"""Twilio twin: an account with telephones, media streams, webhooks and a REST API.

account       the account: places calls, starts and stops everything
caller        one call: webhooks, TwiML, callbacks
dial          the dialled party of a transfer, and what is whispered to it
stream        the call's media stream: the caller's audio, and faults on request
steps         acts of a caller and of the network, as data
call_record   record of a call, for comparison with the gateway's own figures
call_report   report of a call: latency of each turn, gaps, complaints
receiver      the gateway's messages: checked, played, marks echoed
player        playout buffer at Twilio and at the caller's ear
messages      media stream messages as Twilio writes and checks them
twiml         TwiML parser
fields        form fields of webhooks
webhooks      signed HTTP requests to the gateway
faults        faults of a phone leg, by name
rest/         REST API: HTTP server, calls, recordings
"""
