"""The studio's tab Tune in a real browser: a search that is stopped, goes on and ends, its winner in the form, and blind votes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from browser.studio_page import WAIT, cell, in_voila
from i2v_lab import Store
from i2v_lab.store.opinions import Opinions

LONG = 3 * WAIT  # of a whole search, on a busy machine


@pytest.mark.slow
def test_a_search_is_stopped_goes_on_and_ends_and_people_vote(voila, place, page):
    begin = {"resolution": "64x64", "num_frames": 6, "num_inference_steps": 4, "prompt": "zoom in"}
    studio = in_voila(voila, page, voila.write(f"{place.name}/studio.ipynb", [cell(place, **begin)]))
    page.get_by_role("tab", name="Tune").click()
    tab = page.locator(".i2vs-tune")
    search, stop, take = (tab.get_by_role("button", name=name) for name in ("Search", "Stop after this clip", "Use the winner"))
    for row, values in enumerate(("1, 12", "ddim, euler-a")):
        tab.locator(".i2vs-axis input").nth(row).fill(values)
        tab.locator(".i2vs-axis input").nth(row).press("Enter")
    expect(tab).to_contain_text("4 settings", timeout=WAIT)
    goal = tab.locator(".i2vs-goal select").first
    goal.select_option("temporal flickering")
    tab.locator(".i2vs-goal input").fill("20")
    tab.locator(".i2vs-goal input").press("Enter")

    search.click()
    expect(stop).to_be_enabled(timeout=WAIT)
    stop.click()
    expect(tab).to_contain_text("the search is not at its end", timeout=LONG)
    store = Store(place / "results")
    assert len(store.runs()) < 8
    expect(take).to_be_disabled()
    search.click()
    expect(tab).to_contain_text("The best setting is", timeout=LONG)
    expect(tab.get_by_role("button", name="Open report")).to_be_visible()
    expect(take).to_be_enabled()
    take.click()
    said = re.search(r"guidance (\d+), scheduler", tab.inner_text())
    assert said
    expect(studio.entry("guidance_scale")).to_have_value(said[1], timeout=WAIT)
    expect(studio.entry("prompt")).to_have_value("zoom in")
    assert len(store.runs()) <= 20

    goal.select_option("votes")
    search.click()
    expect(tab).to_contain_text("Which clip is better?", timeout=LONG)
    page.wait_for_function("() => document.querySelectorAll('.i2vs-votes video').length === 2", timeout=WAIT)
    assert "guidance" not in tab.locator(".i2vs-votes").inner_text()  # blind
    before = len(store.runs())
    tab.get_by_role("button", name="Left is better").click()
    expect(tab).to_contain_text("1 of 60 votes", timeout=WAIT)
    assert len(Opinions(store).votes()) == 1 and len(store.runs()) == before

    page.get_by_role("button", name="中文").first.click()  # the same pair, asked in another language
    expect(page.get_by_role("tab", name="自动调优")).to_be_visible(timeout=WAIT)
    page.get_by_role("tab", name="自动调优").click()
    expect(tab.get_by_role("button", name="左边更好")).to_be_enabled(timeout=WAIT)
    expect(tab).to_contain_text("已投 1 票")
