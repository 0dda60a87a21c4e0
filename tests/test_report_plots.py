"""The plots of a report: the numbers that they hold, and whether they can be read; the cheapest run."""

from __future__ import annotations

from io import BytesIO
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from sweeps import LONG, table_of

from i2v_lab.errors import InputError
from i2v_lab.report.plot_cost import cost_plots
from i2v_lab.report.plot_metrics import metric_plots
from i2v_lab.report.plot_pareto import pareto_plot
from i2v_lab.report.style import NotebookFigure
from i2v_lab.statistics import cheapest


def lines_of(panel) -> dict[str, tuple[list[float], list[float]]]:
    """The points of each line or set of points, by what the legend calls it."""
    found = {container.get_label(): container.lines[0] for container in panel.containers}
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for label, line in found.items()}


def assert_legible(figure) -> None:
    """It is drawn without a warning, and no text of it is cut or over another."""
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size["width"] == 900
    pixels = np.asarray(Image.open(BytesIO(png)).convert("L"))
    assert all(border.min() == 255 for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))  # no ink at the edges
    renderer = figure.canvas.get_renderer()
    for panel in figure.axes:
        assert not panel.get_title()
        for axis in (panel.xaxis, panel.yaxis):
            shown = [
                label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_text() and label.get_visible()
            ]
            assert not any(one.overlaps(other) for one, other in combinations(shown, 2))


def test_the_lines_hold_the_numbers_of_the_table():
    table = table_of(guidance_scale=[4.5, 9.0, 12.0], num_inference_steps=[10, 20], seed=[0, 1])
    against_guidance, against_steps = cost_plots(table, ["guidance_scale", "num_inference_steps", "seed"])
    seconds, memory = against_guidance.axes
    # Rows count up by one second; the mean of two seeds lies between; a second of loading is left out.
    assert lines_of(seconds) == {"10": ([4.5, 9.0, 12.0], [2.5, 6.5, 10.5]), "20": ([4.5, 9.0, 12.0], [4.5, 8.5, 12.5])}
    assert lines_of(memory)["10"][1] == pytest.approx([0.15, 0.55, 0.95])
    bars = seconds.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in bars] == [[2, 3], [6, 7], [10, 11]]
    assert (seconds.get_xlabel(), seconds.get_ylabel()) == ("guidance_scale", "time per clip, model loaded (s)")
    assert memory.get_ylabel() == "peak RAM (GiB)"
    assert against_steps.axes[0].get_xlabel() == "num_inference_steps (steps)"
    styles = [(container.lines[0].get_marker(), container.lines[0].get_linestyle()) for container in seconds.containers]
    assert len({marker for marker, _ in styles}) == len({line for _, line in styles}) == 2  # also in grey
    assert seconds.get_ylim()[0] == 0
    assert "over seed" in against_guidance.get_supxlabel()
    for figure in (against_guidance, against_steps):
        assert_legible(figure)


def test_vram_is_plotted_where_it_was_measured():
    table = table_of(num_frames=[8, 16]).assign(peak_vram_allocated_gib=[3.0, 5.0])
    (figure,) = cost_plots(table, ["num_frames"])
    assert figure.axes[1].get_ylabel() == "peak VRAM, allocated (GiB)"
    assert lines_of(figure.axes[1])["mean"] == ([8, 16], [3.0, 5.0])
    assert not figure.legends  # one line: nothing to tell apart


def test_cells_that_did_not_finish_are_crosses_and_count_for_nothing():
    table = table_of(num_frames=[8, 16, 32])
    table.loc[2, ["status", "peak_ram_gib", "seconds_total"]] = ["out_of_memory", np.nan, 99.0]
    (figure,) = cost_plots(table, ["num_frames"])
    assert lines_of(figure.axes[0])["mean"] == ([8, 16], [2.0, 3.0])
    (cross,) = [line for line in figure.axes[0].lines if line.get_label() == "not finished"]
    assert list(cross.get_xdata()) == [32]
    assert_legible(figure)
    table["status"] = "failed"
    (empty,) = cost_plots(table, ["num_frames"])
    assert [words.get_text() for words in empty.axes[0].texts] == ["nothing measured"]
    assert_legible(empty)


def test_words_are_points_and_long_ones_are_listed_below_by_number():
    (figure,) = cost_plots(table_of(scheduler=["ddim", "unipc", "euler-a"]), ["scheduler"])
    assert lines_of(figure.axes[0])["mean"] == ([0, 1, 2], [2, 3, 4])
    assert figure.axes[0].containers[0].lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["ddim", "unipc", "euler-a"]
    assert_legible(figure)
    (figure,) = cost_plots(table_of(prompt=[*LONG, "costs $5 to $6", "", None], seed=[0, 1]), ["prompt", "seed"])
    assert lines_of(figure.axes[0])["mean"][0] == list(range(7))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("1234567")
    assert all(f"\n{number}: " in figure.get_supxlabel() for number in range(1, 8))
    assert_legible(figure)
    (one,) = cost_plots(table_of(seed=[0, 2**62]), ["seed"])  # where nothing else was swept, the seed is plotted
    assert_legible(one)


@pytest.mark.parametrize("axes", [
    {"guidance_scale": [9.0]},
    {"guidance_scale": np.arange(0, 40, 0.5).tolist(), "num_inference_steps": list(range(10))},
    {"num_frames": [8, 9, 10, 200], "resolution": ["256p", "704x1280", "64x64"]},
    {"prompt": ["走着的猫", "a cat"], "fps": [8.0, 23.976]},
])  # fmt: skip
def test_any_number_of_values_is_legible(axes):
    for figure in cost_plots(table_of(**axes), list(axes)):
        assert_legible(figure)


def test_plots_of_nothing_and_of_no_column():
    assert cost_plots(table_of(seed=[0]).iloc[:0], ["seed"]) == []
    with pytest.raises(InputError, match="'hue'"):
        cost_plots(table_of(seed=[0]), ["hue"])


def test_the_cheapest_run_that_is_good_enough():
    table = table_of(num_inference_steps=[5, 10, 20, 50]).assign(metric_sharpness=[0.2, np.nan, 0.6, 0.9])
    assert cheapest(table, ["num_inference_steps"], "sharpness", 0.5)["num_inference_steps"] == 20
    assert cheapest(table, ["num_inference_steps"], "metric_sharpness", 0.7)["num_inference_steps"] == 50
    assert cheapest(table, ["num_inference_steps"], "sharpness", 0.95) is None
    table.loc[2, "status"] = "failed"
    assert cheapest(table, ["num_inference_steps"], "sharpness", 0.5)["num_inference_steps"] == 50
    with pytest.raises(InputError, match="metric_sharpness"):
        cheapest(table, ["num_inference_steps"], "beauty", 0.5)


# Quality against cost


def pareto_of(points) -> NotebookFigure:
    """The plot of settings that all are on the line, with these costs and qualities."""
    rows = [
        {"status": "done", "guidance_scale": float(place), "seed": seed, "seconds_total": cost, "seconds_load": 0.0, "peak_ram_gib": 1.0,
         "peak_vram_allocated_gib": np.nan, "metric_prompt_agreement": quality}
        for place, (cost, quality) in enumerate(points) for seed in range(3)
    ]  # fmt: skip
    return pareto_plot(pd.DataFrame(rows), ["guidance_scale", "seed"])


@pytest.mark.parametrize("points", [
    [(1.0, 0.5)],
    [(1 + place / 1000, 0.5 + place / 1000) for place in range(12)],  # all in one column
    [(1 + place / 10_000, 0.5 + place / 100_000) for place in range(8)] + [(50.0, 0.9)],  # all but one in one place
    [(10.0 ** place, 1 - 10.0 ** -place) for place in range(8)],
    [(2.0, 0.5 + place / 10) for place in range(4)] + [(2.0, 0.9)],
], ids=["one", "column", "heap", "corner", "same cost"])  # fmt: skip
def test_numbers_of_the_best_settings_never_overlap_and_stay_inside(points):
    figure = pareto_of(points)
    renderer, (panel,) = FigureCanvasAgg(figure).get_renderer(), figure.axes
    numbers = [text for text in panel.texts if text.get_text()]
    assert [text.get_text() for text in numbers] == [str(number) for number in range(1, len(figure.names) + 1)]
    for text in numbers:
        text.update_positions(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in numbers]  # the number alone, without the line to its point
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    inside = panel.get_window_extent(renderer)
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)


def test_each_panel_is_a_picture_of_its_own_and_holds_nothing_of_its_neighbour():
    table = table_of(guidance_scale=[1.0, 9.0], seed=[0, 1, 2]).assign(metric_sharpness=range(6), metric_motion=0.5)
    (figure,) = metric_plots(table, ["guidance_scale", "seed"], ["sharpness", "motion"])
    parts = figure.panels()
    assert [what for *_, what in parts] == [
        "sharpness (grey levels²) ↑ against guidance_scale",
        "motion (% of the width/s) against guidance_scale",
    ]
    for png, width, _ in parts:
        pixels = np.asarray(Image.open(BytesIO(png)).convert("L"))
        assert abs(pixels.shape[1] - 2 * width) <= 2
        assert all(border.min() == 255 for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))  # no ink at the edges
    assert figure.html().count("<img") == 2 and "↑ higher is better" in figure.html() and "越高越好" in figure.html()
