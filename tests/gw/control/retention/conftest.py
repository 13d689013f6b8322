"""The fixture `rig`."""

from tests.gw.control.retention.rig import rig

__all__ = ["rig"]
