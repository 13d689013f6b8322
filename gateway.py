"""The gateway's command: patches the standard library for gevent, then runs `gw.cli`."""

from gevent import events, monkey

# For plugins gevent would search every installed package, thirty times: a third of the start of a command. None is wanted.
events.notify_and_call_entry_points = events.notify  # type: ignore[attr-defined]
monkey.patch_all()

from gw.cli import main

if __name__ == "__main__":
    main()
