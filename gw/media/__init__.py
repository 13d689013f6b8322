"""The media worker: rings 1 and 2, from the phone socket to the AI socket and back. Never imports `gw.control`.

A frame to the caller:    ai/ -> ai_in -> downlink -> ai_out -> tx -> transport/
A frame from the caller:  transport/ -> session -> uplink -> ai/

worker        one process: parts, heartbeats, drain
session       one media socket: admission, RX, close
call          one call: its parts, and what concerns more than one
downlink      what the caller hears: playout, AI-out, TX, interruptions, holds
tx            ring 1: paces ready frames to the transport
ai_out        cuts frames for TX, asks the recording guard
uplink        the caller's audio on its way to the AI
ai_in         opens AI legs, reads and dispatches their events
ai_side       the AI leg in place, what is sent to it, its successor
call_ending   the one end
call_events   a call's events for control
bus_client    the worker's end of the bus

admission/    slots, one-time tokens, overload, budgets
ai/           kinds of AI legs, and their watchdog
conversation/ the dialogue machine's commands, tools, holding sound, cost
http/         HTTP server, Twilio's webhooks
hub/          waits, greenlet kinds, hold monitor, garbage collector
shared/       what all calls of a worker share: configuration, recorded greetings, routes
talk/         the talk page, a telephone in the browser
transport/    non-blocking sockets, TLS, websockets
"""
