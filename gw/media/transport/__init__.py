"""Non-blocking sockets, and websockets on them.

plain      a socket whose writes never wait
tls        the same with TLS, for the AI leg
websocket  messages over either
"""
