"""Decisions of a call as pure objects: events and times in, values out. No I/O, no clock, no gevent.

answer_clock   how long a caller waits for an answer, by part
backchannel    words that only show attention
audio/         pacer, playout, interruptions, holding sound
cost/          usage, prices, budgets, tokens by the minute
conversation   the conversation so far, for a replacement AI session
digits         digits that the agent asks the caller to type
dialogue/      the machine that decides a conversation
guard          the moment a recording may start
leave          the wish to leave the stream, for a transfer or digits, and how it ended
prompts        instructions before a requested response
quality        a call's quality report
resume         the next step after a stream's end
routes         the first route that a call meets
state          a call's states and reasons to end
tool_calls     the agent's tool calls, and what a replacement AI session receives of them
turns          the turns of both sides, and how much of each was heard
variables      `{{name}}` in an agent's texts
"""
