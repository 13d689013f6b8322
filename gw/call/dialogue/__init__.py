"""The dialogue of a call: one pure machine that tracks the debts of agent and caller.

`inputs` are what the edges report, `commands` what they carry out, `rules` the time limits. `machine` has the tables: which part
reacts to an input or a timer, and what follows then. It never reads a clock, never sees audio, and depends on no provider.

    facts        all facts of one dialogue, and what they imply
    answers      the answer that is owed: its request, and the response under way
    responses    the AI reports a response: its start, audio, tool calls, end, failure
    speech       the caller speaks: turns, interruptions
    keys         the caller types: a turn, or digits for a tool
    playback     what the caller hears: queued, paused, discarded, heard; recorded words, the notice
    silence      the holding sound, a sentence while a tool is slow, the idle limit, missing frames
    tools        open tool calls, their results, leaving the stream
    sessions     the AI's session: opened, lost, replaced
    ending       the end: its cause, the last words, taking it back; the verdict on an outbound call

A part is functions of the facts. Parts call each other in one direction: machine > responses, speech > sessions, silence >
ending, keys > tools > answers, playback > facts.

| rule | promise |
|---|---|
| 1 | no dead air: a caller who is owed an answer gets audio, a bounded request or closing words within a second |
| 2 | the agent speaks only while the caller does not |
| 3 | the AI's history is what the caller heard |
| 4 | a goodbye is heard, and the caller can take it back |
| 5 | each tool call is answered exactly once |
| 6 | a limit is announced, and cuts no speaker off |
| 7 | the end of a stream is not the end of the call |
| 8 | a healthy session is kept: a rate limit waits, a rollover happens between two utterances |
| 9 | an event that cannot be read costs itself |
| 10 | each call ends once, in bounded time, with words |
| 11 | keys that a tool collects reach that tool alone; sensitive ones count once no recording hears them |
| 12 | the notice of the recording is heard to its end |

| when | then |
|---|---|
| the stream begins with a recorded greeting | play it; the agent does not greet again |
| the stream begins with the notice of the recording | play it; nothing interrupts it |
| a session is ready | restate the conversation, then greet, or ask for the owed answer |
| a session is lost | open another within the window, else the fallback; broken sentences are continued, lost words asked for |
| the caller speaks | cut: discard what is unheard, cancel the response; or hold it, if the gateway judges interruptions |
| a short sound ends | the agent speaks on, since the pause of the AI is over; words that come within 0.3 s still cut |
| the caller is silent | an answer is owed: the AI begins it, else it is requested |
| a response sounds | its audio is played, and pays the debt |
| a response fails, or is empty | request it again after 0.3 s and 1 s; then the fallback speaks |
| a response calls tools | each is carried out; once all it waits for are settled, and it has ended, an answer is owed |
| a tool is slow | the holding sound, or one sentence and then the sound |
| a tool runs in the background | it is answered immediately; its result is a system item, and an answer is owed |
| the caller interrupts | tools that ask for it are given up |
| the agent transfers, or sends digits | once all words are heard, control ends the stream; the caller's voice cancels that |
| the call is back | restate the conversation unless its session was kept, give the outcome, and an answer is owed |
| the agent hangs up | end when its goodbye is heard; without a word, request one; the caller's voice takes it back |
| a tool collects digits | the keys are its own until the terminator, the last digit or a pause; sensitive ones are unheard |
| keys are complete | send them, and an answer is owed |
| neither side speaks | ask whether the caller is there, then closing words, then the end |
| the longest call or a budget is reached | a warning before, then closing words and the end, unless a transfer is under way |

`gateway.py verify conversation` explores orders of inputs against these rules.
"""
