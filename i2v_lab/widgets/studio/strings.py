"""Every text of the studio, in English and Chinese: they are in strings.json.

Messages of other modules (advice, errors, waiting) are translated by their code; a message without a known code stays English.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from i2v_lab.clip.params import Advice
from i2v_lab.errors import PROCESS_ENDED, STOPPED_BY_HAND, InputError
from i2v_lab.jobs import DIED
from i2v_lab.language import LANGUAGES, Language, system_language
from i2v_lab.statistics.power import Outlook

_FILE = json.loads(files("i2v_lab.widgets.studio").joinpath("strings.json").read_text(encoding="utf-8"))
TEXTS: dict[str, list[str]] = _FILE["texts"]  # key: English, Chinese
FIELDS_ZH: dict[str, list[str]] = _FILE["fields"]  # field of ClipParams: label, help, placeholder
MESSAGES_ZH: dict[str, str] = _FILE["messages"]  # of other modules, by their code; of an advice the whole line
LABELS_EN: dict[str, str] = _FILE["labels"]  # where the name alone says too little
PLACEHOLDERS_EN: dict[str, str] = _FILE["placeholders"]
UNITS: dict[str, list[str]] = _FILE["units"]  # unit: Chinese; then the part of a label, English and Chinese, that says it already
EXAMPLES: dict[str, str] = _FILE["examples"]  # of values for an axis

# Texts without a code: reasons that a record keeps, and the name of a budget.
LINES_ZH = {
    STOPPED_BY_HAND: "手动停止",
    PROCESS_ENDED: "进程在片段完成前结束",
    DIED: "工作进程在片段完成前结束（被终止或内存不足）",
    "free RAM": "可用内存",
}


def language_of(name: str) -> Language:
    """The language of these screens for one that a browser names: zh-CN is zh, all but Chinese is English."""
    return "zh" if name.lower().startswith("zh") else "en"


def accepted_language() -> Language:
    """The language to begin with: of the request that Voilà answers, else of this machine; the browser may say another."""
    accepted = os.environ.get("HTTP_ACCEPT_LANGUAGE", "")
    return language_of(accepted) if accepted else system_language()


class Strings:
    """The texts of one language: `strings("generate")`."""

    def __init__(self, lang: str = "en") -> None:
        if lang not in LANGUAGES:
            raise InputError(f"lang: expected {' or '.join(LANGUAGES)}, got {lang!r}")
        self.lang = lang
        self._column = tuple(LANGUAGES).index(lang)

    def __call__(self, key: str) -> str:
        return TEXTS[key][self._column]

    def some(self, *keys: str) -> dict[str, str]:
        """{key: text}, as a page takes it."""
        return {key: self(key) for key in keys}

    def states(self) -> dict[str, str]:
        """The texts for the states of a run or a cell."""
        return self.some("done", "failed", "out_of_memory", "stopped", "running", "planned", "gone", "to_do", "cannot_run")

    def label(self, field: str) -> str:
        """What a field of ClipParams is called."""
        if self.lang == "zh" and field in FIELDS_ZH:
            return FIELDS_ZH[field][0]
        return LABELS_EN.get(field) or field.removeprefix("num_").replace("_", " ").capitalize()

    def help(self, field: str, english: str) -> str:
        """Its help, with its name in the code."""
        return f"{field}: {FIELDS_ZH[field][1] if self.lang == 'zh' and field in FIELDS_ZH else english}"

    def placeholder(self, field: str) -> str:
        return FIELDS_ZH[field][2] if self.lang == "zh" and field in FIELDS_ZH else PLACEHOLDERS_EN.get(field, "")

    def unit(self, unit: str, field: str) -> str:
        """The unit of a field; "" where it has none, or its label says it."""
        chinese, *in_labels = UNITS.get(unit, [unit, unit, unit])
        shown = chinese if self.lang == "zh" else unit
        return "" if in_labels[self._column] in self.label(field).lower() else shown

    def values(self, field: str) -> str:
        """An example of values for an axis."""
        return EXAMPLES.get(field, "8, 16")

    def named(self, kind: str, name: str) -> str:
        """The text for a stage, a preset or a sample picture; its name where there is none."""
        return self(f"{kind}_{name}") if f"{kind}_{name}" in TEXTS else name

    def say(self, message: str) -> str:
        """A message of another module, or a reason in a record."""
        if self.lang == "en":
            return message
        template = MESSAGES_ZH.get(getattr(message, "code", ""))
        return template.format(**message.values) if template else LINES_ZH.get(message, message)  # type: ignore[attr-defined]

    def advice(self, advice: Advice) -> str:
        """What is wrong, what will come of it, and what to do."""
        translated = self.say(advice.what)
        return translated if translated != advice.what else f"{advice.what}: {advice.why}; {advice.remedy}"

    def plan(self, counts: dict[str, int], cells: int, time: str, size: float | None) -> str:
        """The plan of a sweep in a line; size: bytes of the clips to run, None where they and the time are not known."""
        counted = ", ".join(f"{count} {self(state.replace(' ', '_'))}" for state, count in counts.items())
        line = self("plan").format(cells=cells, counts=counted)
        if not counts.keys() - {"done"}:
            return line
        if size is None:
            return line + self("plan_unknown")
        return line + self("plan_time").format(time=time, size=size / 1e6)

    def can_show(self, outlook: Sequence[Outlook]) -> str:
        """What a sweep can show, in a line."""
        parts = [
            self("can_show_nothing" if math.isinf(one.size) else "can_show_from").format(label=self.label(one.axis), **vars(one))
            for one in outlook
        ]
        return self("can_show").format(parts="; ".join(parts)) if parts else ""

    def forecast(self, plan: Any) -> str:
        """What the planner expects of a clip, in a line."""
        known = {"peak": plan.peak_gib, "free": plan.free_gib, "budget": self.say(plan.budget.name)}
        if not plan.fits:
            return self("fits_not").format(**known, advice=self.say(plan.advice()))
        time = self("time_unknown") if plan.time is None else self("about_time").format(time=plan.time)
        fits = self("fits").format(**known, time=time, tier=self("on_tier").format(tier=plan.tier) if plan.tier else "")
        return "; ".join([fits, *map(self.say, plan.remarks())])
