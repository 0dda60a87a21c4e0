"""Blind votes: which of two clips is better, without their names."""

from __future__ import annotations

import html
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import ipywidgets

from i2v_lab.errors import I2VLabError, InputError
from i2v_lab.language import LANGUAGE_CSS, Language, system_language
from i2v_lab.report.player.assets import texts
from i2v_lab.report.player.grid import Grid, GridCell, in_words, labels, text_of
from i2v_lab.report.player.view import View, differing
from i2v_lab.settings import load_settings
from i2v_lab.statistics import ranking
from i2v_lab.widgets.clip_player import ClipPlayer

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.store.opinions import Opinions

_LABELS = ("left", "equal", "right")
SIDES = ((("clip", "left"),), (("clip", "right"),))


class BlindVotes(ipywidgets.VBox):  # type: ignore[misc]
    """Two clips in step, without labels, and three buttons: left is better, equal, right is better.

    Pairs with the fewest votes come first; their order and their sides are random. Each vote is stored at once. The ranking is
    shown only on request, so that it does not influence the votes.

    Attributes:
        pair: the rows of the table that are shown now, (left, right).
        player: what shows them.
    """

    def __init__(
        self,
        runs: pd.DataFrame,
        opinions: Opinions,
        *,
        seed: int | None = None,
        pick: Callable[[], tuple[str, str] | None] | None = None,
        language: Language | None = None,
    ) -> None:
        """Ask about the finished runs of a table.

        Args:
            runs: such as runs() gives.
            opinions: keeps the votes.
            seed: of the random order; by default another each time.
            pick: the ids of the pair that is shown next, left and right; None where none is. By default one with the fewest votes.
            language: of the buttons; by default that of the settings.

        Raises:
            InputError: the table has no column id or clip.
        """
        self.opinions = opinions
        self.take(runs)
        self._random = random.Random(seed)  # noqa: S311  an order, no secret
        self._voted = Counter(frozenset(pair) for pair in zip(*(opinions.votes()[side] for side in ("left", "right")), strict=True))
        self.pair: tuple[int, int] | None = None
        self._pick = pick
        self.player = ClipPlayer(_view(self.runs, ()))
        chosen = language or load_settings().language
        language = system_language() if chosen == "auto" else chosen
        self._buttons = {better: ipywidgets.Button(description=texts(f"blind_{better}", language)) for better in _LABELS}
        for better, button in self._buttons.items():
            button.on_click(lambda _, better=better: self.vote(better))
        self._message = ipywidgets.HTML()
        self._ask = ipywidgets.Button(description=texts("blind_ranking", language))
        self._ask.on_click(lambda _: self.show_ranking())
        self._ranking = ipywidgets.HTML()
        row = ipywidgets.HBox([*self._buttons.values(), self._ask], layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([self.player, row, self._message, self._ranking])
        self._next()

    def take(self, runs: pd.DataFrame) -> None:
        """Ask about the runs of this table from the next pair on. Raises InputError as the constructor does."""
        if missing := [name for name in ("id", "clip") if name not in runs.columns]:
            raise InputError(f"blind votes: expected a table with a column {missing[0]}, such as runs() gives")
        self.runs = runs[runs["clip"].notna()].drop_duplicates("id").reset_index(drop=True)

    def vote(self, better: Literal["left", "equal", "right"]) -> None:
        """Store a vote on the pair that is shown, and show the next pair."""
        if self.pair is None:
            return
        left, right = (str(self.runs["id"][number]) for number in self.pair)
        try:
            self.opinions.vote(left, right, better)
        except I2VLabError as error:
            self._message.value = html.escape(str(error))
            return
        self._voted[frozenset((left, right))] += 1
        self._next()
        if self._ranking.value:
            self.show_ranking()

    def show_ranking(self) -> None:
        """Show which settings win, over all seeds."""
        found = ranking(self.opinions.votes(), self.settings())
        apart = int(found["group"].max()) if len(found) else 0
        self._ranking.value = (found.round(2).to_html(escape=True, border=0) if len(found) else _both("blind_none")) + (
            f"<p>{_both('blind_apart', count=apart)}</p>" if apart > 1 else ""
        )

    def settings(self) -> dict[str, str]:
        """{run id: the parameters that differ between the runs, without the seed, in a line}."""
        names = [name for name in differing(self.runs) if name != "seed"]
        words = [in_words(label) or "all the same" for label in labels(self.runs, names)]
        return dict(zip(map(str, self.runs["id"]), words, strict=True))

    def _next(self) -> None:
        """Show the pair that is picked, or one of those with the fewest votes."""
        before = self.pair
        picked = self._pick() if self._pick else None  # it may take other runs
        ids = [str(id) for id in self.runs["id"]]
        if self._pick:
            self.pair = (ids.index(picked[0]), ids.index(picked[1])) if picked and set(picked) <= set(ids) else None
            for button in self._buttons.values():
                button.disabled = self.pair is None
            self._message.value = "" if self.pair else _both("blind_over")
            self.player.show(_view(self.runs, self.pair or ()))
            return
        pairs = [pair for pair in itertools.combinations(range(len(ids)), 2) if before is None or set(pair) != set(before)]
        pairs = pairs or ([before] if before else [])
        if not pairs:
            self._message.value = _both("blind_two")
            for button in self._buttons.values():
                button.disabled = True
            return
        votes = {pair: self._voted[frozenset((ids[pair[0]], ids[pair[1]]))] for pair in pairs}
        fewest = min(votes.values())
        one, other = self._random.choice([pair for pair in pairs if votes[pair] == fewest])
        self.pair = (one, other) if self._random.random() < 0.5 else (other, one)
        asked = sum(self._voted[frozenset((ids[a], ids[b]))] > 0 for a, b in itertools.combinations(range(len(ids)), 2))
        self._message.value = _both("blind_asked", asked=asked, all=len(ids) * (len(ids) - 1) // 2)
        self.player.show(_view(self.runs, self.pair))


def _both(key: str, **values: object) -> str:
    return f"<style>{LANGUAGE_CSS}</style>{texts.both(key, **values)}"


def _view(runs: pd.DataFrame, numbers: tuple[int, ...]) -> View:
    """Two clips side by side, called left and right; nothing else about them goes to the page."""
    table = runs.iloc[list(numbers)][["clip"]].reset_index(drop=True)
    cells = tuple(GridCell(0, place, SIDES[place], {"clip": text_of(runs["clip"][number])}) for place, number in enumerate(numbers))
    grid = Grid(rows=((),), columns=SIDES[: len(cells)], cells=cells, common=(), notes=())
    return View(table, (), grid, plain=True)
