"""AI legs: one file for each kind of AI.

leg         interface and error of every leg
openai_leg  OpenAI Realtime and APIs that speak it
parked      sessions of calls that left their stream, kept for their return
parrot_leg  the embedded parrot agent; its recordings are in prompts/
watchdog    detects a leg that is dead although no call on it failed
"""
