"""axe-core on a page: what keeps people who do not see, or have no mouse, from using it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Frame, Page

GRAVE = ("serious", "critical")
ALL_FRAMES = "axe.configure({allowedOrigins: ['<unsafe_all_origins>']})"  # a sandboxed frame has an origin of its own
RUN = "(context) => axe.run(context || document, {resultTypes: ['violations']})"


def violations(page: Page, *, include_moderate: bool = False, within: str = "") -> list[str]:
    """What axe-core finds: "id: selector: help" for each element, in all frames of the page.

    Args:
        include_moderate: also moderate ones, such as a page without a main landmark or a level-one heading.
        within: a selector: look at this part alone, where the rest is not ours (JupyterLab).
    """
    for frame in page.frames:
        if not frame.evaluate("typeof window.axe?.run === 'function'"):
            frame.evaluate(AXE_SCRIPT)
            frame.evaluate(ALL_FRAMES)
    wanted = (*GRAVE, "moderate") if include_moderate else GRAVE
    found = _run(page.main_frame, within)
    return [
        f"{rule['id']}: {_selector(node['target'])}: {rule['help']}"
        for rule in found
        if rule["impact"] in wanted
        for node in rule["nodes"]
    ]


def _run(frame: Frame, within: str) -> list[dict[str, Any]]:
    return list(frame.evaluate(RUN, within or None)["violations"])


def _selector(target: Sequence[str | Sequence[str]]) -> str:
    """One text for a path through frames and shadow roots."""
    return " ".join(step if isinstance(step, str) else " ".join(step) for step in target)
