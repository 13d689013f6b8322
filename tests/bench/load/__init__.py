"""Load processes of the pressure script: short calls, and Twilio's REST API."""
