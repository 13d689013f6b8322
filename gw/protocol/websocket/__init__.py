"""The websocket protocol (RFC 6455) for both legs.

frames           messages: a fast path for whole text, and the rules for every other frame
handshake        opening handshake: request, check of the answer, proof of the key
"""
