"""Twilio's REST API.

accounts           the configured accounts, and the limits on their requests
rest               the requests, bounded in time
answers            results and errors as values
circuit_breaker    holds requests back while Twilio is down
transfers          transfers calls by redirecting them
"""
