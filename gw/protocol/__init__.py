"""Wire formats as pure functions: bytes to events, events to bytes. No I/O, no clock, no gevent.

ai               the events of an AI leg, whatever API is behind it
audio            constants of telephone audio, mu-law, base64
hooks/           requests to a user's endpoints
http             HTTP/1.1 requests
loopback         requests that are accepted without credentials
openai_realtime  OpenAI Realtime, GA shape
parrot           the embedded agent that repeats the caller's words
signature        X-Twilio-Signature
token            one-time stream tokens
twilio           Twilio Media Streams
twiml            answers to voice webhooks
wav              WAV files to telephone audio
webhook_form     forms of Twilio's webhooks
websocket/       RFC 6455: frames, and the opening handshake
wire             JSON decoding shared by both legs
"""
