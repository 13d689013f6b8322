"""Twins: stand-ins for Twilio and for a realtime AI, for tests, demo, bench and `verify`.

ai/          an OpenAI Realtime server with scripted voices
twilio/      a Twilio account: calls, media streams, webhooks, REST API
speech/      recordings of a human voice
hooks        a user's endpoint for tools and events
sound        mu-law audio, frames, WAV files, inaudible tags
websocket    RFC 6455 over a gevent socket, with ways to break it
polling      waiting for a condition

A twin implements the provider's documentation separately from the gateway, so that a mistake is not made on both sides.
"""
