"""The processes of a gateway that is killed in parts, by its status."""

from __future__ import annotations

from typing import Any

from gw.control.admin.client import AdminClient, NotReachable


class Processes:
    """The control process and the workers of one gateway."""

    def __init__(self, admin: AdminClient, workers: int) -> None:
        """`workers`: their number when all are connected."""
        self._admin = admin
        self._workers = workers

    def status(self) -> dict[str, Any]:
        """Return the gateway's status; empty while control does not answer."""
        try:
            status: dict[str, Any] = self._admin.request("status")
        except (NotReachable, OSError):
            return {}
        return status

    def pids(self, role: str) -> list[int]:
        """Return the pids of a role, `control` or `worker`; none while control does not answer."""
        status = self.status()
        if role == "control":
            return [status["pid"]] if status else []
        return [one["pid"] for one in _connected(status)]

    def is_whole(self) -> bool:
        """Return whether all processes are connected, and each of their events is on disk."""
        workers = _connected(self.status())
        return len(workers) == self._workers and not any(one["unacked"] for one in workers)

    def is_settled(self) -> bool:
        """Return whether no call is live, and each event is in the store."""
        status = self.status()
        return bool(status) and not status["calls"] and not status["backlog"]


def _connected(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in status.get("workers", []) if one["connected"]]
