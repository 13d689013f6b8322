"""No panel is empty when drawn from the data of a gateway under load.

The pictures are in `out/dashboards`.
"""

import pytest
from PIL import Image

from tests.dashboards import draw
from tests.dashboards.panels import boards, panels

#: Height of a panel's title, and width of its frame.
_TITLE_PIXELS = 40
_FRAME_PIXELS = 4


@pytest.fixture(scope="module")
def pictures(shown):
    return draw.draw(shown.panels, shown.since, shown.until)


def test_every_panel_and_every_dashboard_is_drawn(pictures):
    assert sorted(pictures) == sorted([*boards(), *(panel.name for panel in panels())])


@pytest.mark.parametrize("name", [panel.name for panel in panels()])
def test_a_panel_is_not_empty(name, pictures):
    whole: Image.Image = pictures[name]
    inner = whole.crop((_FRAME_PIXELS, _TITLE_PIXELS, whole.width - _FRAME_PIXELS, whole.height - _FRAME_PIXELS)).convert("RGB")
    colours = sorted(inner.getcolors(inner.width * inner.height), reverse=True)
    background = colours[0][0] / (inner.width * inner.height)
    assert len(colours) > 5, "a plain area"
    assert background < 0.998, "almost nothing is drawn"
