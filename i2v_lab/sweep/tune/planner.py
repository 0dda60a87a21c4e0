"""What the planner knows of settings before a clip is made: which of them break a limit."""

from __future__ import annotations

from i2v_lab.cost import Forecaster
from i2v_lab.errors import I2VLabError, SweepError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.tune.definition import Tune, named
from i2v_lab.sweep.tune.goal import predicted
from i2v_lab.sweep.tune.space import Setting


class Planner:
    """The planner, asked about the limits of a tune."""

    def __init__(self, tune: Tune, store: Store, settings: Settings) -> None:
        self.tune, self.store, self.settings = tune, store, settings
        self._known: tuple[int, Forecaster] | None = None  # how many clips it knew of

    def breaks(self, setting: Setting, clips: int = 0) -> str:
        """Which limit a setting is known to break at full quality, and by what; "" for none.

        Args:
            clips: how many were made so far: times are known better after each round.
        """
        if not self.tune.bounds:
            return ""
        if self._known is None or self._known[0] != clips:
            self._known = (clips, Forecaster(device=self.settings.device, store=self.store))
        try:
            forecast = self._known[1].plan(self.tune.params(setting), advise=False)
        except I2VLabError:  # the run says what is wrong
            return ""
        for limit in self.tune.bounds:
            if limit.broken_by(value := predicted(forecast, limit.figure)):
                return f"{limit}: {value:.3g} is predicted"
        return ""

    def possible(self, settings: list[Setting]) -> tuple[list[Setting], dict[str, str]]:
        """(the settings that are not known to break a limit; {another in words: why}).

        Raises:
            SweepError: there are none.
        """
        broken = {named(setting): why for setting in settings if (why := self.breaks(setting))}
        if len(broken) == len(settings):
            name, why = next(iter(broken.items()))
            raise SweepError(f"limits: none of the {len(settings)} settings can meet them; {name}: {why}")
        return [setting for setting in settings if named(setting) not in broken], broken
