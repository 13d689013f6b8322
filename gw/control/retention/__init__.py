"""Retention: files of recordings, deletion at Twilio, removal of old calls, and of one call on request.

purge       sweeps over the calls that ended before a time
media       one recording's file: downloaded, resumed, checked
recordings  downloads finished recordings, deletes old ones at Twilio
service     the greenlet: one gateway of a store at a time, by a lease
erasure     removes one call everywhere
"""
