// Two clips in one place: a wipe with a bar to drag, or their difference.

const GAINS = [1, 2, 4, 8, 16];

class Pair {
  constructor(player, cells, mode) {
    this.player = player;
    this.cells = cells;
    this.clips = cells.map((cell) => new Clip(cell, player, true));
    const [under, over] = this.clips.map((clip, index) => make("div", `i2v-layer ${["under", "over"][index]}`, clip.video));
    this.layers = make("div", "i2v-layers", under, over);
    this.handle = make("div", "i2v-wipe-bar");
    this.box = make("div", "i2v-pair-box", this.layers, this.handle);
    this.box.style.setProperty("--shape", cells[0].width / cells[0].height);
    this.box.addEventListener("pointerdown", (event) => this.drag(event));
    this.root = make("div", "i2v-pair-view", this.bar(), make("div", "i2v-pair-stage", this.box));
    this.move(50);
    this.gained(1);
    this.turn(mode);
  }

  bar() {
    this.modes = ["wipe", "difference"].map((mode) => wordButton(mode, mode, `${mode}_help`, () => this.turn(mode)));
    this.at = make("input");
    Object.assign(this.at, { type: "range", min: 0, max: 100, step: 0.5 });
    named(this.at, "wipe");
    this.at.addEventListener("input", () => this.move(Number(this.at.value)));
    this.gain = chooser("gain", "brightness", GAINS.map((value) => [value, `${value}×`]), (value) => this.gained(Number(value)));
    this.atLabel = labelled("bar", this.at);
    this.gainLabel = labelled("brightness", this.gain);
    const [left, right] = this.cells.map((cell) => this.player.ownLabel(cell, this.cells));
    const names = [left, right].map((label, index) => make("span", `i2v-side ${["left", "right"][index]}`, ...pairs(label, this.player.axisNames)));
    const place = this.cells.findIndex((cell, index) => cell.number === this.cells[1 - index].reference);
    if (place >= 0) names[place].prepend(told(make("b", "i2v-is-reference"), "reference"));
    const close = button("close", "all_clips", () => this.player.closePair());
    return make("div", "i2v-bar i2v-pair-bar", names[0], make("span", "i2v-pair-tools", ...this.modes, this.atLabel, this.gainLabel, close), names[1]);
  }

  turn(mode) {
    this.mode = this.player.pairMode = mode;
    this.box.classList.toggle("difference", mode === "difference");
    for (const one of this.modes) one.setAttribute("aria-pressed", String(one.classList.contains(`i2v-${mode}`)));
    this.atLabel.hidden = mode !== "wipe";
    this.gainLabel.hidden = mode === "wipe";
    this.light();
  }

  // The bar is at `at` per cent: the first clip is left of it, the second right.
  move(at) {
    this.box.style.setProperty("--at", `${Math.min(Math.max(at, 0), 100)}%`);
    this.at.value = at;
  }

  gained(times) {
    this.times = times;
    this.light();
  }

  light() {
    this.layers.style.filter = this.mode === "difference" && this.times > 1 ? `brightness(${this.times})` : "";
  }

  drag(event) {
    if (this.mode !== "wipe" || event.button !== 0) return;
    event.preventDefault();
    this.box.setPointerCapture(event.pointerId);
    const follow = (moved) => {
      const { left, width } = this.box.getBoundingClientRect();
      this.move((100 * (moved.clientX - left)) / width);
    };
    follow(event);
    this.box.addEventListener("pointermove", follow);
    const end = () => this.box.removeEventListener("pointermove", follow);
    this.box.addEventListener("pointerup", end, { once: true });
    this.box.addEventListener("pointercancel", end, { once: true });
  }

  open() {
    for (const clip of this.clips) clip.attach();
  }

  destroy() {
    for (const clip of this.clips) clip.detach();
    this.root.remove();
  }
}
