"""One call's conversation: the edge of the dialogue machine, and what its commands need.

dialogue      passes events to the dialogue machine, carries out its commands
digits        sensitive digits that the caller types
tools         the way of a tool call to control, and of its result to the AI
hold_sound    the holding sound while an answer is awaited
spending      a call's usage of AI models, and the budget
"""
