"""Decisions of a call as pure objects: events and times in, values out. No I/O, no clock, no gevent.

backchannel    words that only show attention
bargein        interruptions: cuts and truncations
conversation   the conversation so far, for a replacement AI session
guard          the moment a recording may start
hold_tone      the sound while another AI is being reached
pacer          due times of frames, and frames heard
pending_reply  the unanswered turn, for a replacement AI session
playout        the buffer of AI audio, and its ledger of heard items
prompts        instructions before a requested response
quality        a call's quality report
reconnect      retries of a failed AI leg, replacement of an expiring one
responses      response.create: never during a response
resume         the next step after a stream's end
state          a call's states and reasons to end
turns          the turns of both sides, and how much of each was heard
"""
