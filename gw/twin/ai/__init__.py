"""AI twin: an OpenAI Realtime server that needs no key, with scripted voices.

server     listener, handshakes, all sessions
session    one session: client events and their answers
voice      responses: audio deltas, cancellation, end
sender     outgoing events, and the faults a script asks for
events     event shapes, and validation of session.update
faults     tables of faults by name: their messages, endings and places
script     a session's speech and faults, decided in advance
ledger     record of everything a session sent and received
vad        voice activity detection by energy
"""
