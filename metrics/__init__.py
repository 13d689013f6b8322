"""Metrics of all processes, in shared memory; independent of the gateway.

declare      all metric families, with labels and buckets
layout       the binary layout of a page, derived from the declarations
page         one process's page: cells that are written by plain stores
locks        file locks that mark a live process
pages_dir    the directory of the pages, in memory
process_figures  CPU time, memory and descriptors of this process
exposition   the sums over all pages, as text for Prometheus
dashboards/  Grafana dashboards as code
"""
