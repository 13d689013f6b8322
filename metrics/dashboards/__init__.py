"""The dashboards, as code: one file each, generated into `deploy/grafana/dashboards` by `make dashboards`.

Decides what an operator sees of the metrics that `metrics.declare` declares and of the store's rows. Built with Grafana's own
SDK, whose version names the schema (Grafana 11.6; later ones read it). A tool of developers: the gateway never imports it.
"""
