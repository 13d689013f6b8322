"""Entry: patches the standard library for gevent, as the gateway does, before anything else is imported."""

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()
    from tests.calls.conversations.command import main

    main()
