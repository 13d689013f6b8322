"""`python -m tests.dashboards`: draw every panel into `out/dashboards`, from a scene of more than a minute."""

from gevent import monkey

monkey.patch_all()

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.dashboards import answers, draw  # noqa: E402
from tests.dashboards.scene import playing  # noqa: E402
from tests.mariadb import MariaDB  # noqa: E402

#: Duration of placing calls.
_SECONDS = 75.0


def main() -> None:
    draw.built()
    database = MariaDB()
    try:
        database.start()
        with tempfile.TemporaryDirectory(prefix="submilli-scene-") as folder, playing(Path(folder), database, _SECONDS) as scene:
            panels = answers.collect(scene)
            since, until = scene.since, scene.until
    finally:
        database.remove()
    pictures = draw.draw(panels, since, until)
    print(f"{len(pictures)} pictures in {draw.OUT}")


if __name__ == "__main__":
    main()
