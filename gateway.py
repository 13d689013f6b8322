"""The gateway's one command: patches the standard library for gevent before anything else is imported, then gw.cli."""

from gevent import monkey

monkey.patch_all()

from gw.cli import main

if __name__ == "__main__":
    main()
