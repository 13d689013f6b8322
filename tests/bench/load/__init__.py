"""Load beside the calls that are measured.

pressure         script: the effect of recordings, scrapes and a dead store on lateness
stalling_store   a store that stops answering, and its variants
churn            process of short calls
rest             process of Twilio's REST API
"""
