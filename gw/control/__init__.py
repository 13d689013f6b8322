"""The control process (ring 3): everything with a side effect outside the audio path.

main           builds the parts, serves, shuts down
identity       the id of this gateway, kept in `var_dir`
fleet          this gateway among the others of its store
bus/           events from the workers, commands to them
spool/         events on disk until the store has them
store/         the database
rows           rows of the store as values
spending       usage of AI models: metrics, and the limits of a day
turn_metrics   how long callers wait for answers: metrics
calls/         reactions to the end of a stream or a call
recording/     one recording for each call
twilio_api/    Twilio's REST API
admin/         the admin socket and its commands
health         readiness, status and gauges
ops_http       `/metrics`, `/healthz`, `/readyz`
durable        files that survive the loss of power
talk_feed      words and histograms for the talk page
unix_socket    private Unix sockets for the bus and the admin commands
"""
