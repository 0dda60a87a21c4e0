// Which axes make the columns and the rows: as the page has them, or as the user chooses.

class Axes {
  constructor(player) {
    this.player = player;
    this.across = this.down = "";
    for (const { cell } of player.slots) cell.place = { row: cell.row, column: cell.column };
  }

  controls() {
    const names = this.player.data.axes.map((axis) => axis.name);
    if (names.length < 2 || this.player.data.cells.length < 3) return [];
    const options = [["", () => t("as_made")], ...names.map((name) => [name, name])];
    this.choosers = ["across", "down"].map((side) => chooser(side, side, options, (name) => this.choose(side, name)));
    return this.choosers.map((node, index) => labelled(["across", "down"][index], node));
  }

  choose(side, name) {
    this[side] = name;
    const other = side === "across" ? "down" : "across";
    if (this[other] === name) this[other] = "";
    this.choosers[0].value = this.across;
    this.choosers[1].value = this.down;
    this.place();
    this.player.order.unsort();
  }

  // Axes that change together with `name`, itself first: one value of the one for each of the other.
  tied(name) {
    const pairsOf = (other) => new Set(this.player.slots.map(({ cell }) => `${this.value(cell, name)}\n${this.value(cell, other)}`)).size;
    const many = (axis) => new Set(this.player.slots.map(({ cell }) => this.value(cell, axis))).size;
    return [name, ...this.names.filter((other) => other !== name && pairsOf(other) === many(name) && many(other) === many(name))];
  }

  value(cell, name) {
    return cell.label.find(([one]) => one === name)?.[1] ?? "";
  }

  // The axes of the columns and those of the rows.
  sides() {
    this.names = this.player.data.axes.map((axis) => axis.name);
    const down = this.down ? this.tied(this.down) : [];
    const across = this.tied(this.across || this.names.findLast((name) => !down.includes(name))).filter((name) => !down.includes(name));
    return [across, [...down, ...this.names.filter((name) => !across.includes(name) && !down.includes(name))]];
  }

  // Gives each cell its row and column, and the player its heads.
  place() {
    const { data, slots } = this.player;
    if (!this.across && !this.down) {
      for (const { cell } of slots) Object.assign(cell, cell.place);
      this.player.heads(data.rows, data.columns, data.wraps);
      return;
    }
    const [across, down] = this.sides();
    const [columns, rows] = [across, down].map((names) => this.points(names));
    for (const { cell } of slots) {
      cell.column = columns.findIndex((point) => point.every(([name, value]) => this.value(cell, name) === value));
      cell.row = rows.findIndex((point) => point.every(([name, value]) => this.value(cell, name) === value));
    }
    this.player.heads(rows, columns, false);
  }

  // The labels of a side: each combination of values that a clip has, in the order of the values.
  points(names) {
    const rank = (name, value) => this.player.data.axes.find((axis) => axis.name === name).values.indexOf(value);
    const found = new Map(this.player.slots.map(({ cell }) => {
      const point = names.map((name) => [name, this.value(cell, name)]);
      return [JSON.stringify(point), point];
    }));
    const compare = (a, b) => a.reduce((sign, [name, value], place) => sign || rank(name, value) - rank(name, b[place][1]), 0);
    return [...found.values()].sort(compare);
  }
}
