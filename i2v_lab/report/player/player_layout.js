// Where the clips stand, and how large they are. A subclass has the elements: root, grid, scroll, slots, data.

class Layout extends Clock {
  // The heads of a grid; none in a list.
  heads(rows, columns, wraps) {
    this.list = wraps;
    if (wraps) return;
    const sticky = columns.every((label) => words(label).length <= 80); // a tall head would cover the clips
    this.columnHeads = columns.map((label) => this.head(label, sticky ? "column sticky" : "column"));
    this.rowHeads = rows.map((label) => this.head(label, "row"));
  }

  head(label, kind) {
    return make("div", `i2v-head ${kind}`, ...pairs(label, this.axisNames));
  }

  // The places of the clips: each in its row and column, or one after the other in lines that break anywhere.
  arrange(shown, list) {
    this.wraps = list || this.list;
    this.grid.classList.toggle("wraps", this.wraps);
    for (const slot of this.slots) slot.node.style.gridArea = "";
    const nodes = shown.map((slot) => slot.node);
    if (!this.slots.length) return;
    if (this.wraps) this.grid.replaceChildren(...nodes);
    else this.grid.replaceChildren(...this.placed(shown), ...nodes);
    if (!shown.length) this.grid.append(told(make("p", "i2v-empty"), "nothing_left"));
    if (this.resizer && !this.sized) this.resize(this.fitting());
  }

  // Gives each clip its place in the rows and columns that have clips. Returns the heads and gaps.
  placed(shown) {
    const numbers = (side) => [...new Set(shown.map((slot) => slot.cell[side]))].sort((a, b) => a - b);
    const [rows, columns] = [numbers("row"), numbers("column")];
    this.lines = rows.length;
    this.grid.style.gridTemplateColumns = `fit-content(240px) repeat(${columns.length}, auto)`;
    const taken = new Map(shown.map((slot) => [`${slot.cell.row} ${slot.cell.column}`, slot]));
    const found = [];
    const put = (node, row, column) => {
      node.style.gridArea = `${row} / ${column}`;
      found.push(node);
    };
    columns.forEach((column, index) => put(this.columnHeads[column], 1, index + 2));
    rows.forEach((row, line) => {
      put(this.rowHeads[row], line + 2, 1);
      columns.forEach((column, index) => {
        const slot = taken.get(`${row} ${column}`);
        if (slot) slot.node.style.gridArea = `${line + 2} / ${index + 2}`;
        else put(this.slots.length > shown.length ? make("div", "i2v-gap") : told(make("div", "i2v-gap"), "no_run"), line + 2, index + 2);
      });
    });
    return found;
  }

  // The width of a clip with which all of them are seen at once and as large as possible; where that is too small, the grid scrolls.
  fitting() {
    const shown = this.grid.querySelectorAll(".i2v-slot").length;
    const heads = this.wraps ? 0 : Math.max(...this.rowHeads.map((node) => node.offsetWidth), 0) + 10;
    const shape = Math.max(...this.data.cells.map((cell) => (cell.width ? cell.height / cell.width : 0)), 0) || 1;
    const own = Math.max(...this.data.cells.map((cell) => cell.width || 0), 0) || 240;
    const below = this.belowHeight() + 10;
    const room = (many) => (this.scroll.clientWidth - 24 - heads - 10 * (many - 1)) / many;
    const tall = (lines) => ((this.scroll.clientHeight - 30 - (this.wraps ? 0 : this.headHeight())) / lines - below) / shape;
    const columns = this.grid.querySelectorAll(".i2v-head.column").length;
    const choices = this.wraps ? Array.from({ length: Math.max(shown, 1) }, (_, place) => place + 1) : [Math.max(columns, 1)];
    const whole = Math.max(...choices.map((many) => Math.min(room(many), tall(this.wraps ? Math.ceil(shown / many) : Math.max(this.lines, 1)))));
    const most = Math.min(Math.max(2 * own, 320), 960);
    const narrow = this.root.classList.contains("narrow");
    if (whole >= (narrow ? 110 : 150)) return Math.floor(Math.min(whole, most));
    const wide = room(this.wraps ? Math.max(1, Math.min(4, Math.floor(this.scroll.clientWidth / 170))) : choices[0]);
    const half = (0.6 * this.scroll.clientHeight) / shape; // so that a clip can be enlarged in a low window too
    return Math.floor(Math.max(narrow ? 72 : 96, Math.min(wide, half, Math.max(own, 320), 420)));
  }

  // What is below the picture of a clip, in pixels.
  belowHeight() {
    const slots = [...this.grid.querySelectorAll(".i2v-slot")].slice(0, 50);
    return Math.max(...slots.map((node) => node.offsetHeight - (node.querySelector(".i2v-picture")?.offsetHeight ?? node.offsetHeight)), 0);
  }

  headHeight() {
    return Math.max(...[...this.grid.querySelectorAll(".i2v-head.column")].map((node) => node.offsetHeight), 0);
  }

  resize(width) {
    if (document.activeElement === this.size) this.sized = true; // chosen by the user: not fitted any more
    this.grid.style.setProperty("--cell", `${width}px`);
    this.size.max = Math.max(640, width);
    this.size.value = width;
  }
}
