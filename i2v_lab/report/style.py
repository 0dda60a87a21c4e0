"""What all plots of a report share: figures, colours, names of values, and which metrics are shown."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from i2v_lab.errors import InputError
from i2v_lab.metrics import METRICS
from i2v_lab.report.player.fonts import drawable, wrap
from i2v_lab.report.player.grid import plain_values, value_texts

if TYPE_CHECKING:
    import pandas as pd

# Series differ in colour, and in marker and line too. The colours are those of Okabe and Ito, for colour-blind people.
STYLES = [
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#cc79a7", "D", ":"),
    ("#56b4e9", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#e69f00", "P", (0, (8, 3))),
]
UNITS = {
    "num_frames": "frames",
    "fps": "frames/s",
    "condition_fps": "frames/s",
    "num_inference_steps": "steps",
    "resolution": "px",
}
# In this order, three in a row: motion is beside flicker, whose best value has a clip that does not move.
SHOWN = ("prompt_agreement", "sharpness", "sharpness_loss", "motion", "temporal_flickering", "smoothness",
         "input_ssim", "drift_ssim", "warping_error")  # fmt: skip
_NAME_LIMIT = 90  # characters of a name in a plot


class NotebookFigure(Figure):
    """A figure that any notebook shows, without pyplot: a PNG of twice the resolution, in the size of its inches."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = BytesIO()
        FigureCanvasAgg(self)
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        width, height = (round(side * self.dpi) for side in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


def value_names(axis: str, order: Sequence[Any]) -> list[str]:
    """Values of an axis as a plot can draw them."""
    return [drawable(text) for text in value_texts(axis, order)]


def plot_name(text: str) -> str:
    """The name of a category in lines of about 2.4 inches; the middle of a long name is left out."""
    if len(text) > _NAME_LIMIT:
        text = f"{text[: _NAME_LIMIT - 30].rpartition(' ')[0] or text[:60]} … {text[-25:].partition(' ')[2] or text[-25:]}"
    # matplotlib would read two dollar signs as mathematics.
    return "\n".join(wrap(text, 240, 13)).replace("$", r"\$")


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """The names of the metrics that have values in this table, in the order of a report; with flicker comes motion."""
    found = [name for name in SHOWN if f"metric_{name}" in table and table[f"metric_{name}"].notna().any()]
    if "temporal_flickering" in found and "motion" not in found and "metric_motion" in table:
        found.insert(found.index("temporal_flickering"), "motion")
    return found


def metric_label(metric: str) -> str:
    known = METRICS.get(metric.removeprefix("metric_"))
    return known.label + {True: " ↑", False: " ↓", None: ""}[known.better] if known else metric


def shown_axes(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """The axes that findings are about: those with several values. Means are over seeds, and over pictures where another axis
    was swept."""
    if unknown := [axis for axis in axes if axis not in table.columns]:
        raise InputError(f"axes: expected columns of the table, got {', '.join(map(repr, unknown))}")
    several = [axis for axis in axes if axis != "seed" and len(set(plain_values(table, axis))) > 1]
    return [axis for axis in several if axis != "image"] or several
