"""The best setting under a budget: a sweep file with a space, a goal and a budget; clips are made where they tell most.

from i2v_lab.sweep.tune import Tune, run_tune
tune = Tune(base={"image": "sample:coffee", "prompt": "zoom in"}, space={"guidance_scale": "2..14 step 2"},
            goal="prompt_agreement", budget={"clips": 40})
run_tune(tune).winner
"""

from i2v_lab.sweep.tune.definition import Tune, load_tune, open_tune, parse_tune
from i2v_lab.sweep.tune.outcome import Outcome
from i2v_lab.sweep.tune.run import TuneProgress, TuneResult, run_tune

__all__ = ["Outcome", "Tune", "TuneProgress", "TuneResult", "load_tune", "open_tune", "parse_tune", "run_tune"]
