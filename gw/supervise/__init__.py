"""The supervisor of a gateway's processes.

child            one child process: start, readiness, signals, priority
config_snapshot  the configuration file as one generation of processes reads it
cpu_affinity     the cores of each process
process          keeps one child running
process_group    all processes: creation, heartbeats, the end
reload           replaces all processes under calls
sockets          the lock of var_dir, and the public socket
supervisor       start, reload and stop of the whole
systemd          notifications to the service manager
trial            control and a worker, constructed before a reload
"""
