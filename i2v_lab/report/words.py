"""The words of a report in English and Chinese: names of metrics and axes, amounts with units, lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from i2v_lab.language import LANGUAGES, Language, Texts, both
from i2v_lab.metrics import METRICS

TEXTS = Texts("i2v_lab.report")


@dataclass(frozen=True)
class Said:
    """One text in both languages; no HTML."""

    en: str
    zh: str

    def html(self) -> str:
        """Both, escaped; LANGUAGE_CSS shows one."""
        return both(escape(self.en), escape(self.zh))


def said(write: Callable[[Words], str]) -> Said:
    """A text that is written once in each language."""
    return Said(*(write(Words(language)) for language in LANGUAGES))


def phrase(key: str, **values: object) -> Said:
    """A text of strings.json in both languages."""
    return said(lambda say: say(key, **values))


class Words:
    """Writes in one language: `say("more_seeds", count=3)` is a text of strings.json."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, key: str, **values: object) -> str:
        return TEXTS(key, self.language, **values)

    def known(self, key: str, other: str) -> str:
        """A text of strings.json, or `other` where there is none."""
        try:
            return self(key)
        except KeyError:
            return other

    def title(self, metric: str) -> str:
        """What a metric is called, from its name or its column, at the beginning of a sentence."""
        found = self.in_line(metric)
        return found[:1].upper() + found[1:]

    def in_line(self, metric: str) -> str:
        """The same within a sentence."""
        name = metric.removeprefix("metric_")
        if not (known := METRICS.get(name)):
            return self.known(name, name)
        found = known.chinese if self.language == "zh" else known.title[:1].lower() + known.title[1:]
        return found + (self("proxy") if known.proxy else "")

    def unit(self, metric: str) -> str:
        """Its unit with a space before it; "" where it has none."""
        known = METRICS.get(metric.removeprefix("metric_"))
        return f" {self.known(known.unit, known.unit)}" if known and known.unit else ""

    def axis(self, name: str) -> str:
        """A swept parameter in words: guidance."""
        return self.known(f"axis.{name}", name.replace("_", " "))

    def listed(self, words: Sequence[str]) -> str:
        """a, b and c."""
        *first, last = words or ("",)
        return self("and").join(filter(None, [self("comma").join(first), last]))

    def count(self, number: int, thing: str) -> str:
        """3 seeds."""
        return self(f"{thing}.one" if number == 1 else f"{thing}.many", count=number)
