"""The gateway's command: patches the standard library for gevent, then runs `gw.cli`."""

from gevent import monkey

monkey.patch_all()

from gw.cli import main

if __name__ == "__main__":
    main()
