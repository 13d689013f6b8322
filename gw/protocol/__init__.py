"""Wire formats as pure functions: bytes to events, events to bytes. No I/O, no clock, no gevent.

ai               the events of an AI leg, whatever API is behind it
audio            constants of telephone audio, mu-law, base64
frames           websocket messages of RFC 6455
hook_event       events of calls for a user's endpoint
hook_signature   Submilli-Signature, of requests to a user's endpoints
openai_realtime  OpenAI Realtime, GA shape
parrot           the embedded agent that repeats the caller's words
signature        X-Twilio-Signature
token            one-time stream tokens
tool_call        requests to a user's tools, and their answers
twilio           Twilio Media Streams
twiml            answers to voice webhooks
wav              WAV files to telephone audio
wire             JSON decoding shared by both legs
"""
