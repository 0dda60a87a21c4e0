// A table of runs to choose from: sort by a click on a head, filter by words, choose rows. Texts of runs are untrusted.

const ROWS_SHOWN = 300; // more would make the page slow; the filter finds the others
const NONE = "–";

class RunTable {
  constructor(root, { columns, params, rows, chosen, changed }) {
    Object.assign(this, { root, columns, params, rows, changed });
    this.chosen = new Set(chosen);
    this.sort = -1;
    this.falling = false;
    this.words = [];
    this.last = -1; // the row that was clicked last: shift-click chooses up to the next
    root.classList.add("i2v-table");
    this.endLooks = followLooks(root, () => this.relanguage());
    this.build();
    this.fill();
  }

  relanguage() {
    sayAgain(this.root);
    this.mark();
  }

  build() {
    const filter = make("input", "i2v-words");
    filter.type = "search";
    say(filter, () => (filter.placeholder = t("table_filter_help")));
    named(filter, "table_filter");
    filter.addEventListener("input", () => {
      this.words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.fill();
    });
    filter.addEventListener("keydown", (event) => event.stopPropagation()); // not a shortcut of the notebook
    this.said = make("span", "i2v-table-said");
    this.said.setAttribute("role", "status");
    const all = wordButton("all", "table_all", "table_all_help", () => this.chooseAll());
    const none = wordButton("none", "none", "table_none_help", () => {
      this.chosen.clear();
      this.tell();
    });
    this.heads = this.columns.map((name, index) => {
      const head = make("button", "i2v-sorter", name);
      head.type = "button";
      titled(head, "table_sort", { name });
      head.addEventListener("click", () => this.sorted(index));
      return make("th", "", head);
    });
    this.body = make("tbody");
    const table = make("table", "", make("thead", "", make("tr", "", make("th", "i2v-box", told(make("span", "i2v-hidden"), "table_boxes")), ...this.heads)), this.body);
    const scroll = named(make("div", "i2v-table-scroll", table), "table_runs");
    Object.assign(scroll, { tabIndex: 0, role: "region" });
    this.root.replaceChildren(make("div", "i2v-table-bar", filter, all, none, this.said), scroll);
  }

  sorted(index) {
    this.falling = this.sort === index && !this.falling;
    this.sort = index;
    this.fill();
  }

  passes(row) {
    return this.words.every((word) => {
      const [column, ...rest] = word.split(":");
      const at = rest.length ? this.columns.indexOf(column) : -1;
      if (at < 0) return row.some((value) => String(value ?? "").toLowerCase().includes(word));
      return String(row[at] ?? "").toLowerCase().includes(rest.join(":"));
    });
  }

  found() {
    const numbers = this.rows.map((_, number) => number).filter((number) => this.passes(this.rows[number]));
    if (this.sort < 0) return numbers.reverse(); // the newest first
    const sign = this.falling ? -1 : 1;
    const value = (number) => this.rows[number][this.sort];
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
    return numbers.sort((a, b) => {
      const [one, other] = [value(a), value(b)];
      if (one === null || other === null) return (one === null) - (other === null); // nothing comes last
      return sign * compare(one, other);
    });
  }

  fill() {
    const found = this.found();
    this.shown = found.slice(0, ROWS_SHOWN);
    this.matching = found.length;
    this.heads.forEach((head, index) => head.setAttribute("aria-sort", index !== this.sort ? "none" : this.falling ? "descending" : "ascending"));
    this.lines = new Map(this.shown.map((number) => [number, this.line(number)]));
    this.body.replaceChildren(...this.lines.values());
    this.mark();
  }

  line(number) {
    const box = make("input");
    Object.assign(box, { type: "checkbox" });
    named(box, "table_row", { number: number + 1 });
    const cells = this.rows[number].map((value) => {
      const text = value === null ? NONE : typeof value === "number" ? figureText(value) : value;
      const cell = make("td", typeof value === "number" ? "number" : "", text);
      cell.title = text;
      return cell;
    });
    const line = make("tr", "", make("td", "i2v-box", box), ...cells);
    line.addEventListener("click", (event) => this.choose(number, event.shiftKey));
    return line;
  }

  choose(number, range) {
    const from = this.shown.indexOf(this.last);
    const to = this.shown.indexOf(number);
    if (range && from >= 0) {
      for (const one of this.shown.slice(Math.min(from, to), Math.max(from, to) + 1)) this.chosen.add(one);
    } else if (!this.chosen.delete(number)) {
      this.chosen.add(number);
    }
    this.last = number;
    this.tell();
  }

  chooseAll() {
    for (const number of this.found()) this.chosen.add(number);
    this.tell();
  }

  tell() {
    this.mark();
    this.changed([...this.chosen].sort((a, b) => a - b));
  }

  // The chosen rows, with the values that differ among them in colour.
  mark() {
    for (const [number, line] of this.lines) {
      line.classList.toggle("chosen", this.chosen.has(number));
      line.querySelector("input").checked = this.chosen.has(number);
    }
    const several = (name) => new Set([...this.chosen].map((number) => this.rows[number][this.columns.indexOf(name)])).size > 1;
    const differing = this.params.filter(several); // in the order, and so in the colours, of the player's axes
    this.columns.forEach((name, index) => {
      const at = differing.indexOf(name);
      const nodes = [this.heads[index], ...[...this.lines.values()].map((line) => line.children[index + 1])];
      for (const node of nodes) node.style.setProperty("--mark", at < 0 ? "" : `var(--axis-${at % COLOURS})`);
      this.heads[index].classList.toggle("differs", at >= 0);
      for (const [number, line] of this.lines) line.children[index + 1].classList.toggle("differs", at >= 0 && this.chosen.has(number));
    });
    const hidden = this.matching - this.shown.length;
    const parts = [t("table_chosen", { chosen: this.chosen.size, all: this.rows.length })];
    if (this.matching < this.rows.length) parts.push(t("table_match", { count: this.matching }));
    if (hidden > 0) parts.push(t("table_shown", { count: this.shown.length }));
    this.said.textContent = this.rows.length ? parts.join(" · ") : t("no_runs");
  }
}

export default {
  render({ model, el }) {
    const root = make("div", "");
    el.append(root);
    let table = null;
    const changed = (chosen) => {
      model.set("selected", chosen);
      model.save_changes();
    };
    const show = () => {
      table?.endLooks();
      table = new RunTable(root, { ...model.get("data"), chosen: model.get("selected"), changed });
    };
    const select = () => {
      table.chosen = new Set(model.get("selected"));
      table.mark();
    };
    model.on("change:data", show);
    model.on("change:selected", select);
    show();
    return () => {
      model.off("change:data", show);
      model.off("change:selected", select);
      table.endLooks();
    };
  },
};
