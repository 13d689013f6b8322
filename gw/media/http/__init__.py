"""The public HTTP side of a worker.

server        HTTP server: upgrades, shared connections, watchdog
webhooks      Twilio's webhooks
"""
