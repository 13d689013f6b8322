"""Decisions of a call as pure objects: events and times in, values out. No I/O, no clock, no gevent.

backchannel    words that only show attention
bargein        interruptions: cuts and truncations
budget         limits on cost, and how a call stands
conversation   the conversation so far, for a replacement AI session
dialogue/      the machine that decides a conversation
guard          the moment a recording may start
hold_tone      the sound while another AI is being reached
pacer          due times of frames, and frames heard
playout        the buffer of AI audio, and its ledger of heard items
prompts        instructions before a requested response
quality        a call's quality report
resume         the next step after a stream's end
routes         the first route that a call meets
state          a call's states and reasons to end
token_minute   tokens that the AI allows by the minute
tool_calls     the agent's tool calls, and what a replacement AI session receives of them
turns          the turns of both sides, and how much of each was heard
usage          tokens and cost of a call
variables      `{{name}}` in an agent's texts
"""
