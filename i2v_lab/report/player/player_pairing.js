// Which two clips are shown together, as a wipe or a difference, and the place that they take.

class Pairing extends Layout {
  pairControls() {
    if (this.data.cells.filter(playable).length < 2) return [];
    this.pairButtons = ["wipe", "difference"].map((mode) => wordButton(mode, mode, `${mode}_help`, () => this.askPair(mode)));
    this.pairSaid = make("span", "i2v-pair-said");
    this.pairSaid.setAttribute("role", "status");
    say(this.pairSaid, () => this.saidChosen());
    return [make("span", "i2v-pair-buttons", this.pairSaid, ...this.pairButtons)];
  }

  saidChosen() {
    if (!this.pairSaid) return;
    const picking = ["pick_first", "pick_second"][this.chosen.length];
    this.pairSaid.textContent = t(this.picking ? picking : ["pair", "pair_one_more", "pair_chosen"][this.chosen.length]);
    this.root.classList.toggle("picking", Boolean(this.picking));
    for (const node of this.pairButtons) node.setAttribute("aria-pressed", String(node.classList.contains(`i2v-${this.picking}`)));
  }

  chooseButton(cell) {
    const node = button("choose", "choose", () => this.choose(cell));
    node.setAttribute("aria-pressed", "false");
    cell.mark = node;
    return node;
  }

  // One click: the reference left, this clip right, as a wipe or as the difference that was looked at last.
  againstButton(cell) {
    const reference = this.data.cells[cell.reference];
    return reference && playable(reference) ? [button("against", "against", () => this.openAgainst(cell))] : [];
  }

  openAgainst(cell) {
    const reference = this.data.cells[cell.reference];
    if (reference && playable(reference) && playable(cell)) this.openPair(this.pairMode || "wipe", [reference, cell]);
  }

  choose(cell) {
    if (!cell.mark) return;
    if (this.chosen.includes(cell)) this.chosen = this.chosen.filter((one) => one !== cell);
    else this.chosen = [...this.chosen, cell].slice(-2);
    for (const slot of this.slots) {
      const at = this.chosen.indexOf(slot.cell);
      slot.node.classList.toggle("chosen", at >= 0);
      slot.cell.mark?.setAttribute("aria-pressed", String(at >= 0));
    }
    if (this.picking && this.chosen.length === 2) this.openPair(this.picking);
    else this.saidChosen();
  }

  // A wipe or a difference: of the two that are chosen, or of the only two that are there; else two are to be clicked.
  askPair(mode) {
    const shown = this.slots.filter((slot) => slot.node.isConnected && playable(slot.cell)).map((slot) => slot.cell);
    if (this.chosen.length < 2 && shown.length === 2) this.chosen = shown;
    if (this.chosen.length === 2) {
      this.openPair(mode);
    } else {
      this.picking = this.picking === mode ? null : mode;
      this.saidChosen();
    }
  }

  // The label of a cell beside others: the values in which they differ.
  ownLabel(cell, cells) {
    const told = cell.label.filter(([name, value]) => cells.some((other) => other.label.some(([n, v]) => n === name && v !== value)));
    return told.length ? told : cell.label;
  }

  openPair(mode, cells) {
    this.picking = null;
    this.saidChosen();
    if (this.zoomed) this.shrink();
    this.pair = new Pair(this, cells || this.leftFirst(this.chosen), mode);
    this.grow();
    this.scroll.hidden = true; // the clips behind leave the view, and their files are dropped
    this.root.classList.add("paired");
    this.stage.append(this.pair.root);
    this.clips.push(...this.pair.clips);
    this.pair.open();
    this.root.focus({ preventScroll: true });
  }

  // Two cells as they are seen: the left one first, or the upper one of a column.
  leftFirst(cells) {
    const places = cells.map((cell) => this.slots.find((slot) => slot.cell === cell).node.getBoundingClientRect());
    const across = places[0].left - places[1].left;
    const turned = Math.abs(across) > 4 ? across > 0 : places[0].top > places[1].top;
    return turned ? [cells[1], cells[0]] : cells;
  }

  closePair() {
    const { pair } = this;
    this.pair = null;
    this.clips = this.clips.filter((clip) => !pair.clips.includes(clip));
    pair.destroy();
    this.root.classList.remove("paired");
    this.scroll.hidden = false;
    this.ungrow();
    this.root.focus({ preventScroll: true });
  }

  // As large as the window: in a notebook the player lies over it for the time; in a page of its own it has it all anyway.
  grow() {
    this.at = [this.scroll.scrollLeft, this.scroll.scrollTop];
    this.root.classList.add("large");
    if (this.data.standalone || !this.root.showPopover || document.fullscreenElement) return;
    const around = this.root.parentNode;
    around.style.minHeight = `${this.root.offsetHeight}px`; // so that the notebook keeps its place
    this.root.popover = "manual";
    this.root.showPopover();
  }

  ungrow() {
    this.root.classList.remove("large");
    this.root.removeAttribute("popover");
    this.root.parentNode.style.minHeight = "";
    [this.scroll.scrollLeft, this.scroll.scrollTop] = this.at;
  }
}
