"""Audio for the caller, from the AI's bytes to the due time of each frame.

pacer          due times of frames, and frames heard
playout        the buffer of AI audio, and its ledger of heard items
bargein        interruptions: cuts and truncations
hold_tone      the sound while another AI is being reached
"""
