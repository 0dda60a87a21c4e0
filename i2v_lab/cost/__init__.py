"""Memory, FLOPs and time of a clip before it runs; what fits, and on which tier of the memory ladder.

from i2v_lab.cost import Budget, plan
print(plan(params).sentence())
plan(params, device="cuda", budget=Budget.vram(12)).tier
fits_on("wan2.2-ti2v-5b", Budget.vram(12), device="cuda")
"""

from i2v_lab.cost.answer import Forecast
from i2v_lab.cost.budget import CARDS, Budget
from i2v_lab.cost.forecast import Forecaster, fits_on, native, plan

__all__ = ["CARDS", "Budget", "Forecast", "Forecaster", "fits_on", "native", "plan"]
