"""Load processes of the bench: telephones and an AI, in plain Python on epoll, without gevent.

ai              process: Realtime sessions, the audio they send and the latency of the audio they receive
audio           audio formats of those sessions, and noise for formats without numbered frames
callers         process: telephones that talk 50 frames a second and listen
jitter_buffer   lateness, underruns and losses at a caller
loop            epoll, timer wheel, samples, orders from the bench
voice           schedule of an AI session's audio
wire            websocket messages, numbered frames, non-blocking sockets
"""
