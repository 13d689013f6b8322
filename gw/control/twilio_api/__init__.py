"""Twilio's REST API.

rest               the requests, bounded in time
answers            results and errors as values
circuit_breaker    holds requests back while Twilio is down
transfers          transfers calls by redirecting them
"""
