// Which clips are shown, and in what order: sorted and filtered by the table's columns, the best marked.

class Order {
  constructor(player) {
    this.player = player;
    this.hidden = new Map(player.data.axes.map((axis) => [axis.name, new Set()]));
    this.sort = "";
    this.falling = false;
    this.best = player.data.best ? `${player.data.best.is} ${player.data.best.column}` : "";
  }

  // The controls; none where there is nothing to choose.
  controls() {
    const { axes, fields, cells } = this.player.data;
    if (cells.length < 2) return [];
    const names = [...new Set([...this.player.axisNames, ...fields])];
    this.sorter = chooser("sort", "sort_by", [["", () => t("as_made")], ...names.map((name) => [name, name])], (name) => this.sorted(name));
    this.turnButton = button("down", "reverse", () => this.sorted(this.sort, !this.falling));
    this.turnButton.disabled = true;
    const made = [make("span", "i2v-sorting", labelled("sort", this.sorter), this.turnButton)];
    if (fields.length) {
      const options = fields.flatMap((name) => ["lowest", "highest"].map((is) => [`${is} ${name}`, () => t(is, { name })]));
      const best = chooser("best", "best_by", [["", () => t("none")], ...options], (value) => {
        this.best = value;
        this.mark();
      });
      best.value = this.best;
      made.push(labelled("best", best));
    }
    if (axes.length) made.push(this.filterButton());
    return made;
  }

  filterButton() {
    this.panel = make("div", "i2v-filter", ...this.player.data.axes.map((axis) => this.filterRow(axis)));
    this.panel.hidden = true;
    this.opener = wordButton("filters", "filter", "filter_help", () => {
      this.panel.hidden = !this.panel.hidden;
      this.opener.setAttribute("aria-expanded", String(!this.panel.hidden));
    });
    this.opener.setAttribute("aria-expanded", "false");
    return this.opener;
  }

  filterRow(axis) {
    const [head] = pairs([[axis.name, ""]], this.player.axisNames);
    const boxes = axis.values.map((value) => {
      const box = make("input");
      Object.assign(box, { type: "checkbox", checked: true });
      box.addEventListener("change", () => {
        if (box.checked) this.hidden.get(axis.name).delete(value);
        else this.hidden.get(axis.name).add(value);
        this.apply();
      });
      return make("label", "i2v-value-box", box, make("span", "", value));
    });
    return make("div", "i2v-filter-row", head, ...boxes);
  }

  sorted(name, falling = false) {
    this.sort = name;
    this.falling = falling;
    this.turnButton.disabled = !name;
    this.turnButton.replaceChildren(icon(falling ? "up" : "down"));
    this.apply();
  }

  // The grid again, after a choice of axes.
  unsort() {
    if (this.sorter) this.sorter.value = "";
    this.sorted("");
  }

  passes(cell) {
    return cell.label.every(([name, value]) => !this.hidden.get(name)?.has(value));
  }

  // The sort key of a cell: its number, or the position of its text among the values of the axis; cells without one are last.
  rank(cell) {
    const axis = this.player.data.axes.find((one) => one.name === this.sort);
    if (!axis) return cell.values[this.sort] ?? null;
    const at = axis.values.indexOf(cell.label.find(([name]) => name === this.sort)?.[1]);
    return at < 0 ? null : at;
  }

  ordered(slots) {
    if (!this.sort) return slots;
    const sign = this.falling ? -1 : 1;
    const ranked = slots.map((slot) => [slot, this.rank(slot.cell)]);
    ranked.sort(([, a], [, b]) => (a === null) - (b === null) || sign * (a - b)); // equal ones keep their order
    return ranked.map(([slot]) => slot);
  }

  // Show the clips that pass the filter: as a grid, or as a list where they are sorted.
  apply() {
    const { player } = this;
    const shown = this.ordered(player.slots.filter((slot) => this.passes(slot.cell)));
    player.arrange(shown, Boolean(this.sort));
    this.mark(shown);
  }

  mark(shown = this.player.slots.filter((slot) => this.passes(slot.cell))) {
    const [is, ...rest] = this.best.split(" ");
    const column = rest.join(" ");
    const made = shown.filter((slot) => playable(slot.cell) || slot.cell.poster); // a failed run was quick, but is not the best
    const rated = made.filter((slot) => typeof slot.cell.values[column] === "number");
    const values = rated.map((slot) => slot.cell.values[column]);
    const best = is === "lowest" ? Math.min(...values) : Math.max(...values);
    const all = this.player.slots.length;
    if (this.opener) this.opener.textContent = t(shown.length < all ? "filter_some" : "filter", { shown: shown.length, all });
    this.player.saidChosen();
    for (const slot of this.player.slots) {
      const wins = rated.includes(slot) && slot.cell.values[column] === best;
      slot.node.classList.toggle("best", wins);
      slot.badge.textContent = wins ? t("best_badge", { what: t(is, { name: column }), value: figureText(best) }) : "";
      slot.measure.replaceChildren();
      const value = slot.cell.values[this.sort];
      if (value !== undefined && !slot.cell.label.some(([name]) => name === this.sort)) {
        slot.measure.replaceChildren(...pairs([[this.sort, figureText(value)]]));
      }
    }
  }
}
