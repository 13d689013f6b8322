"""Grafana dashboards as code, one module each; `make dashboards` writes them to `deploy/grafana/dashboards`.

    __main__     writes the files
    assemble     a dashboard from rows of panels
    panels       the kinds of panel, and PromQL for histograms
    fleet        all gateways side by side, alerts, resources of their processes
    latency      the 1 ms promise, lateness, holds of the event loop
    calls        calls in progress, their starts and ends, strangers
    turns        how long callers wait for the first word and for each answer
    cost         usage of AI models, by model and by agent
    recording    recordings, events on their way to the store, processes
    ai_legs      failures of the AI, and their effect on callers
    endpoints    requests to the user's own endpoints
    one_call     the store's rows of one call

Built with Grafana's SDK. Its version determines the schema: Grafana 11.6, which later versions read. The gateway never imports
this package.
"""
