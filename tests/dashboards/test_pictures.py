"""Every panel can be drawn from what a gateway under load brought about, and something stands in it. Look at `out/dashboards`."""

import pytest
from PIL import Image

from tests.dashboards import draw
from tests.dashboards.panels import boards, panels

#: A panel's title stands above this, its frame at the outermost pixels.
_TITLE_PIXELS = 40
_FRAME_PIXELS = 4


@pytest.fixture(scope="module")
def pictures(shown):
    return draw.draw(shown.panels, shown.since, shown.until)


def test_every_panel_and_every_dashboard_is_drawn(pictures):
    assert sorted(pictures) == sorted([*boards(), *(panel.name for panel in panels())])


@pytest.mark.parametrize("name", [panel.name for panel in panels()])
def test_something_stands_in_a_panel(name, pictures):
    whole: Image.Image = pictures[name]
    inner = whole.crop((_FRAME_PIXELS, _TITLE_PIXELS, whole.width - _FRAME_PIXELS, whole.height - _FRAME_PIXELS)).convert("RGB")
    colours = sorted(inner.getcolors(inner.width * inner.height), reverse=True)
    ground = colours[0][0] / (inner.width * inner.height)
    assert len(colours) > 5, "a plain area"
    assert ground < 0.998, "next to nothing is drawn"
