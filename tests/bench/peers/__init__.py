"""Other designs behind the bench's load.

run, report        the comparison: a script, its tables and pictures
pipecat_server     a bridge made of pipecat
threads_server     a bridge made of threads and queues
lifeline           ends a server with the script
"""
