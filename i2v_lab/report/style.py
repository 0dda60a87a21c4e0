"""What all plots of a report share: figures, colours, names of values, and which metrics are shown."""

from __future__ import annotations

import base64
import itertools
import textwrap
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from PIL import Image

from i2v_lab.metrics import METRICS
from i2v_lab.report.pieces import framed
from i2v_lab.report.player.fonts import drawable, font_file, wrap
from i2v_lab.report.player.grid import check_axes, plain_values, value_order, value_texts
from i2v_lab.report.words import Said

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
}
# In this order, three in a row: motion is beside flicker, whose best value has a clip that does not move.
SHOWN = ("prompt_agreement", "sharpness", "sharpness_loss", "motion", "temporal_flickering", "smoothness",
         "input_ssim", "drift_ssim", "warping_error")  # fmt: skip
QUALITIES = ("prompt_agreement", "drift_ssim", "input_ssim", "smoothness")  # the first that has values is plotted against cost
_NAME_LIMIT = 90  # characters of a name in a plot
_MARGIN = 4  # pixels around a panel
_SHORT = 10  # characters: longer names of values are listed below the plot, by number


class NotebookFigure(Figure):
    """A figure that any notebook shows, without pyplot: as HTML, each panel a picture of its own, so that a phone shows them one
    below the other; or as one PNG. Both have twice the resolution of their size in inches.

    Attributes:
        said: what is drawn, in both languages. names: of what the plot numbers.
    """

    said: Said | None = None
    names: tuple[str, ...] = ()

    def explain(self, said: Said | None, names: Sequence[str] = ()) -> None:
        """Write a line below the figure, and the names of what the plot numbers."""
        self.said, self.names = said, tuple(names)
        lines = [plot_name(f"{number}: {name}").replace("\n", " ") for number, name in enumerate(names, 1)]
        words = textwrap.wrap(said.en, round(16 * self.get_figwidth())) if said else []
        if text := "\n".join([*words, *lines]):
            self.supxlabel(text, fontproperties=FontProperties(fname=font_file(text), size=8))

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = BytesIO()
        FigureCanvasAgg(self)
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        width, height = (round(side * self.dpi) for side in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}

    def _repr_html_(self) -> str:
        return framed(self.html())

    def html(self) -> str:
        """The panels, and below them what is drawn."""
        pictures = "".join(
            f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(alt, quote=True)}" '
            f'style="width:min(100%,{round(1.3 * width)}px)">'
            for png, width, alt in self.panels()
        )
        names = "".join(f"<li>{escape(name)}</li>" for name in self.names)
        words = (self.said.html() if self.said else "") + (f"<ol>{names}</ol>" if names else "")
        caption = f"<figcaption>{words}</figcaption>" if words else ""
        return f'<figure class="i2v-plot"><div class="i2v-panels">{pictures}</div>{caption}</figure>'

    def panels(self) -> list[tuple[bytes, int, str]]:
        """(PNG, width in pixels at its size in inches, what it is) of each panel and legend."""
        self.draw_without_rendering()  # which settles where everything is
        self.set_layout_engine("none")
        renderer = FigureCanvasAgg(self).get_renderer()  # type: ignore[no-untyped-call]
        parts = [part for part in [*self.axes, *self.legends] if part.get_visible()]
        found = []
        for part in parts:
            for other in parts:
                other.set_visible(other is part)  # the title of a panel may reach over the next one
            box = part.get_tightbbox(renderer)
            if box is not None:
                buffer = BytesIO()
                room = Bbox(box.padded(_MARGIN).get_points() / self.dpi)
                self.savefig(buffer, format="png", dpi=2 * self.dpi, bbox_inches=room, pad_inches=0)
                small = BytesIO()
                Image.open(buffer).convert("RGB").quantize(256).save(small, format="PNG")
                found.append((small.getvalue(), round(box.width + 2 * _MARGIN), _what(part)))
        for part in parts:
            part.set_visible(True)
        return found


def _what(part: Any) -> str:
    """The text for readers who do not see a panel."""
    if not isinstance(part, Axes):
        return "legend"
    return f"{part.get_title(loc='left') or part.get_ylabel()} against {part.get_xlabel()}"


def new_figure(height: float, width: float = 9) -> NotebookFigure:
    """An empty figure; sides in inches."""
    return NotebookFigure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def nothing_measured(panel: Axes) -> None:
    panel.text(0.5, 0.5, "nothing measured", transform=panel.transAxes, ha="center", va="center", color="#57606a")


def tidy(panel: Axes) -> None:
    """A light grid behind the points, and no frame at the top and the right."""
    panel.grid(True, color="#d0d7de", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def error_bars(found: pd.DataFrame, mean: str = "mean", low: str = "low", high: str = "high") -> list[pd.Series[float]]:
    """From three columns: the lengths below and above the mean; 0 where there is no interval."""
    sides = (found[mean] - found[low], found[high] - found[mean])
    return [side.fillna(0).clip(lower=0) for side in sides]


def axis_title(axis: str) -> str:
    return axis + (f" ({UNITS[axis]})" if axis in UNITS else "")


class Along:
    """The values of a swept parameter along a plot.

    Attributes:
        places: where each value is drawn: at itself where the axis is numeric, otherwise by its number in the order.
        at: the place of each row of the table.
        names: of the values. numbered: whether they are long, so that the plot shows their numbers and lists them below.
    """

    def __init__(self, table: pd.DataFrame, axis: str) -> None:
        values = plain_values(table, axis)
        order = value_order(axis, values)
        self.axis = axis
        self.numeric = axis not in ("seed", "resolution") and all(isinstance(value, (int, float)) for value in order)
        self.places = {value: float(value) if self.numeric else float(number) for number, value in enumerate(order)}
        self.at = [self.places[value] for value in values]
        self.names = value_names(axis, order)
        self.numbered = not self.numeric and (max(map(len, self.names)) > _SHORT or sum(map(len, self.names)) > 6 * _SHORT)

    @property
    def room(self) -> float:
        """Inches that the list of names needs below the plot."""
        return 0.17 * len(self.names) if self.numbered else 0.0

    def name(self, panel: Axes) -> None:
        """Set the title of the axis, ticks where the values are, and the grid."""
        panel.tick_params(labelsize=8)
        panel.set_xlabel(axis_title(self.axis), fontsize=8)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        at = sorted(self.places.values())
        low, high = at[0], at[-1]
        margin = 0.5 if not self.numeric else 0.08 * (high - low) or max(abs(low), 1) * 0.5
        panel.set_xlim(low - margin, high + margin)
        if not self.numeric and len(at) <= 30:
            names = [str(number) for number in range(1, len(at) + 1)] if self.numbered else self.names
            panel.set_xticks(at, names, fontproperties=FontProperties(fname=font_file("".join(names)), size=8))
        elif len(at) <= 8 and all(after - before > 0.07 * (high - low) for before, after in itertools.pairwise(at)):
            panel.set_xticks(at, [f"{place:g}" for place in at])
        else:
            panel.xaxis.set_major_locator(MaxNLocator(8, integer=all(place == int(place) for place in at)))
        tidy(panel)

    @property
    def listed(self) -> list[str]:
        """The names of the values where the plot shows their numbers."""
        return self.names if self.numbered else []


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
    check_axes(table, axes)
    several = [axis for axis in axes if axis != "seed" and len(set(plain_values(table, axis))) > 1]
    return [axis for axis in several if axis != "image"] or several
