// A grid of clips that play in step by one clock. No library, no build step, no network. player_*.js come before it.
//
// mount(element, data) fills the element and returns { destroy, play, pause, seek, tell }. All texts of `data` are untrusted and
// become text nodes. data = { rows, columns: [label], wraps, common: label, notes: [text], standalone,
// axes: [{ name, values: [text] }] (what differs, in order), fields: [name] (numbers to sort by),
// best: { column, is: lowest | highest } or null, plain (no tools), cells: [cell] }; label = [[axis, value], ...];
// cell = { number, row, column, label, status, reason, width, height (px), frames, fps, mime, values: { field: number },
// base64 | src | lazy (the clip; none of them where there is none), poster (an address), said (a text over the picture),
// code: [number of a line] (its script; the lines themselves are in data.lines) }.
// A kernel adds functions: load(key) => Promise<Blob> for lazy cells; rate and note, see player_opinions.js.

class Player extends Clock {
  constructor(element, data) {
    super();
    this.root = element;
    this.data = { axes: [], fields: [], best: null, ...data };
    this.axisNames = this.data.axes.map((axis) => axis.name);
    this.shelf = new Shelf(data.load || (() => Promise.reject(new Error("this page has no such clip"))));
    this.slots = [];
    this.chosen = [];
    this.lines = 1;
    this.build();
    this.measureClips();
    this.scrub.max = this.frames - 1;
    this.count.style.minWidth = `${0.85 * this.countText(this.frames - 1).length}ch`; // so that the bar keeps its width
    this.order.apply();
    this.show();
    this.listen();
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.clips.length && !still) this.play();
    this.begin();
  }

  // Building

  build() {
    const { data, root } = this;
    root.classList.add("i2v-player");
    root.tabIndex = 0;
    this.order = new Order(this);
    this.grid = make("div", "i2v-grid");
    this.scroll = make("div", "i2v-scroll", this.grid);
    this.stage = make("div", "i2v-stage", this.scroll);
    const notes = [...(data.common.length ? [`in all: ${words(data.common)}`] : []), ...data.notes];
    root.replaceChildren(this.bar(), this.stage);
    const tools = data.plain ? [] : [...this.order.controls(), ...this.pairControls()];
    if (tools.length) this.stage.before(make("div", "i2v-bar i2v-tools", ...tools));
    if (this.order.panel) this.stage.before(this.order.panel);
    this.notes = make("ul", "i2v-notes", ...notes.map((note) => make("li", "", note)));
    this.notes.hidden = !notes.length;
    this.stage.before(this.notes);
    this.heads();
    for (const cell of data.cells) this.slots.push(this.slot(cell));
    if (!data.cells.length) this.grid.append(make("p", "i2v-empty", "There are no clips yet."));
  }

  bar() {
    this.toggle = button("play", "Play or pause (space)", () => (this.playing ? this.pause() : this.play()));
    const back = button("back", "One frame back (left arrow)", () => this.step(-1));
    const next = button("next", "One frame on (right arrow)", () => this.step(1));
    this.scrub = make("input");
    Object.assign(this.scrub, { type: "range", min: 0, step: 1, value: 0 });
    this.scrub.setAttribute("aria-label", "frame");
    this.scrub.addEventListener("input", () => this.seek(Number(this.scrub.value)));
    this.count = make("span", "i2v-count");
    const speed = chooser("speed", "speed", SPEEDS.map((value) => [value, `${value}×`]), (value) => this.setSpeed(Number(value)));
    speed.value = "1";
    const loop = make("input", "i2v-loop");
    Object.assign(loop, { type: "checkbox", checked: true });
    loop.addEventListener("change", () => (this.loop = loop.checked));
    this.size = make("input");
    Object.assign(this.size, { type: "range", min: 96, max: 640, step: 8 });
    this.size.addEventListener("input", () => this.resize(Number(this.size.value)));
    const bar = make(
      "div", "i2v-bar",
      make("span", "i2v-buttons", back, this.toggle, next),
      make("span", "i2v-scrub", this.scrub, this.count),
      make("label", "", "speed", speed), make("label", "", loop, "loop"), make("label", "i2v-size", "size", this.size),
    );
    if (document.fullscreenEnabled) {
      bar.append(button("full", "Full screen", () => (document.fullscreenElement ? document.exitFullscreen() : this.root.requestFullscreen())));
    }
    return bar;
  }

  heads() {
    const { rows, columns, wraps } = this.data;
    if (wraps) return;
    const sticky = columns.every((label) => words(label).length <= 80); // a tall head would cover the clips
    this.columnHeads = columns.map((label) => this.head(label, sticky ? "column sticky" : "column"));
    this.rowHeads = rows.map((label) => this.head(label, "row"));
  }

  // Show an error to the user.
  tell(text) {
    this.notes.hidden = false;
    this.notes.querySelector(".problem")?.remove();
    this.notes.prepend(make("li", "problem", text));
  }

  head(label, kind) {
    return make("div", `i2v-head ${kind}`, ...pairs(label, this.axisNames));
  }

  slot(cell) {
    cell.values ||= {};
    const figure = this.figure(cell);
    const slot = { cell, badge: make("div", "i2v-best-badge"), measure: make("div", "i2v-measure") };
    slot.node = make("div", "i2v-slot", figure, slot.badge, slot.measure);
    if (this.data.rate && cell.named) slot.node.append(starRow(cell, this.data.rate));
    return slot;
  }

  figure(cell) {
    const caption = make("figcaption", "", ...pairs(cell.label, this.axisNames));
    const facts = Object.entries(cell.values).filter(([name]) => !this.axisNames.includes(name)).map(([name, value]) => [name, figureText(value)]);
    if (facts.length) caption.append(make("span", "i2v-facts", ...pairs(facts)));
    if (!playable(cell) && !cell.poster) {
      const failed = make("div", "i2v-failed", make("b", "", cell.status.replaceAll("_", " ")), cell.reason || "");
      return make("figure", "i2v-cell bare", failed, caption);
    }
    const picture = make("div", "i2v-picture");
    if (playable(cell)) {
      const clip = new Clip(cell, this);
      this.clips.push(clip);
      picture.append(clip.video);
    } else {
      const image = make("img");
      Object.assign(image, { src: cell.poster, alt: words(cell.label) });
      picture.append(image);
    }
    if (cell.said) picture.append(make("span", "i2v-said", cell.said));
    const figure = make("figure", "i2v-cell", picture, caption);
    if (this.data.note && cell.named) figure.append(...noteField(cell, this.data.note));
    if (cell.code && !this.data.plain) picture.append(codeButton(cell, this));
    if (playable(cell) && !this.data.plain && this.data.cells.length > 1) picture.append(this.chooseButton(cell));
    figure.tabIndex = 0;
    figure.title = "Click, or Enter, to enlarge; shift-click to choose it for a wipe or a difference";
    figure.addEventListener("click", (event) => (event.shiftKey && playable(cell) ? this.choose(cell) : this.zoom(figure)));
    return figure;
  }

  // The places of the clips: each in its row and column, or one after the other in lines that break anywhere.
  arrange(shown, list) {
    this.wraps = list || this.data.wraps;
    this.grid.classList.toggle("wraps", this.wraps);
    for (const slot of this.slots) slot.node.style.gridArea = "";
    const nodes = shown.map((slot) => slot.node);
    if (!this.slots.length) return;
    if (this.wraps) this.grid.replaceChildren(...nodes);
    else this.grid.replaceChildren(...this.placed(shown), ...nodes);
    if (!shown.length) this.grid.append(make("p", "i2v-empty", "No clip has all of these values: choose more of them under filter."));
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
        else put(make("div", "i2v-gap", this.slots.length > shown.length ? "" : "no run"), line + 2, index + 2);
      });
    });
    return found;
  }

  // Two clips together

  pairControls() {
    if (this.data.cells.filter(playable).length < 2) return [];
    this.pairButtons = ["wipe", "difference"].map((mode) => wordButton(mode, mode, `Show two chosen clips as a ${mode}`, () => this.openPair(mode)));
    this.pairSaid = make("span", "i2v-pair-said");
    this.saidChosen();
    return [make("span", "i2v-pair-buttons", this.pairSaid, ...this.pairButtons)];
  }

  saidChosen() {
    if (!this.pairSaid) return;
    this.pairSaid.textContent = ["choose two clips (shift-click):", "choose one more:", "the two chosen:"][this.chosen.length];
    for (const node of this.pairButtons) node.disabled = this.chosen.length < 2;
  }

  chooseButton(cell) {
    const node = button("choose", "Choose for a wipe or a difference", (event) => {
      event.stopPropagation();
      this.choose(cell);
    });
    node.setAttribute("aria-pressed", "false");
    cell.mark = node;
    return node;
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
    this.saidChosen();
  }

  // The label of a cell beside others: the values in which they differ.
  ownLabel(cell, cells) {
    const told = cell.label.filter(([name, value]) => cells.some((other) => other.label.some(([n, v]) => n === name && v !== value)));
    return told.length ? told : cell.label;
  }

  openPair(mode) {
    if (this.chosen.length < 2) return;
    if (this.zoomed) this.zoom(this.zoomed);
    this.pair = new Pair(this, this.chosen, mode);
    this.place = this.scroll.scrollTop;
    this.scroll.hidden = true; // the clips behind leave the view, and their files are dropped
    this.root.classList.add("paired");
    this.stage.append(this.pair.root);
    this.clips.push(...this.pair.clips);
    this.pair.open();
  }

  closePair() {
    const { pair } = this;
    this.pair = null;
    this.clips = this.clips.filter((clip) => !pair.clips.includes(clip));
    pair.destroy();
    this.root.classList.remove("paired");
    this.scroll.hidden = false;
    this.scroll.scrollTop = this.place;
    this.root.focus();
  }

  // The script of a clip

  openCode(cell, opener) {
    this.closeCode();
    this.code = new Code(this, cell, opener);
    this.stage.append(this.code.root);
    this.code.copier.focus();
  }

  closeCode() {
    if (!this.code) return;
    this.code.root.remove();
    this.code.opener.focus();
    this.code = null;
  }

  // What the user does

  listen() {
    this.keyTarget = this.data.standalone ? document : this.root;
    this.onKey = (event) => this.key(event);
    this.keyTarget.addEventListener("keydown", this.onKey);
    this.onShow = () => document.visibilityState === "visible" && this.playing && this.gather(this.time);
    document.addEventListener("visibilitychange", this.onShow);
    this.seen = new Map(this.clips.map((clip) => [clip.video, clip]));
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const clip = this.seen.get(entry.target);
        if (entry.isIntersecting) clip.attach();
        else clip.detach();
      }
    }, { rootMargin: "100px" });
    for (const clip of this.clips) this.observer.observe(clip.video);
    this.resizer = new ResizeObserver(() => this.sized || this.resize(this.fitting()));
    this.resizer.observe(this.root);
    this.resize(this.fitting());
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || (this.code && event.key !== "Escape")) return;
    const { target } = event;
    const control = target instanceof Element && target.closest("input, select, textarea, button");
    const acts = {
      " ": () => (this.playing ? this.pause() : this.play()),
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Home: () => this.seek(0),
      End: () => this.seek(this.frames - 1),
      Escape: () => (this.code ? this.closeCode() : this.pair ? this.closePair() : this.zoomed && this.zoom(this.zoomed)),
      Enter: () => target.classList?.contains("i2v-cell") && !target.classList.contains("bare") && this.zoom(target),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    // A control keeps the keys that it uses itself; on the scrub bar the arrow keys are steps anyway.
    const own = control && control !== this.scrub && !(control.tagName === "BUTTON" && event.key.startsWith("Arrow"));
    if (own && event.key !== "Escape") return;
    if (own && target.tagName === "TEXTAREA") target.blur(); // which saves what was written
    event.preventDefault();
    acts[event.key]();
  }

  zoom(figure) {
    const open = this.zoomed === figure;
    if (this.zoomed) {
      this.zoomed.classList.remove("zoomed");
      this.zoomed.parentNode.style.minHeight = "";
      this.zoomed = null;
    }
    if (open) return;
    figure.parentNode.style.minHeight = `${figure.offsetHeight}px`; // so that the grid behind keeps its shape
    figure.classList.add("zoomed");
    this.zoomed = figure;
  }

  fitting() {
    const widest = Math.max(...this.data.cells.map((cell) => cell.width || 0), 0) || 240;
    const { wraps } = this;
    const heads = wraps ? 0 : Math.max(...this.rowHeads.map((node) => node.offsetWidth), 0) + 10;
    const shown = this.grid.querySelectorAll(".i2v-slot").length;
    const many = wraps ? Math.min(shown, 4) : this.grid.querySelectorAll(".i2v-head.column").length;
    const room = (this.scroll.clientWidth - 24 - heads - 10 * (many - 1)) / Math.max(many, 1);
    // Show all rows at once, where the clips stay large enough.
    const lines = wraps ? Math.ceil(shown / Math.max(many, 1)) : this.lines;
    const below = wraps ? 30 + 20 * Math.max(...this.data.cells.map((cell) => cell.label.length), 0) : 10 + 26 * Boolean(this.data.rate);
    const taken = 40 + below * lines + (wraps ? 0 : this.headHeight());
    const shape = Math.max(...this.data.cells.map((cell) => (cell.width ? cell.height / cell.width : 0)), 0) || 1;
    const tall = (this.scroll.clientHeight - taken) / Math.max(lines, 1) / shape;
    const width = Math.min(room, Math.max(widest, 320), 420);
    return Math.floor(Math.max(96, tall >= 180 ? Math.min(width, tall) : width));
  }

  headHeight() {
    return Math.max(...[...this.grid.querySelectorAll(".i2v-head.column")].map((node) => node.offsetHeight), 0);
  }

  resize(width) {
    if (document.activeElement === this.size) this.sized = true; // chosen by the user: not fitted any more
    this.grid.style.setProperty("--cell", `${width}px`);
    this.size.value = width;
  }

  countText(frame) {
    return `frame ${frame + 1} / ${this.frames} · ${(frame / this.fps).toFixed(2)} s`;
  }

  show() {
    const frame = this.frame();
    if (this.scrub.value !== String(frame)) this.scrub.value = frame;
    const text = this.countText(frame);
    if (this.count.textContent !== text) this.count.textContent = text;
    if (this.shown !== this.playing) {
      this.shown = this.playing;
      this.toggle.replaceChildren(icon(this.playing ? "pause" : "play"));
      this.toggle.setAttribute("aria-pressed", String(this.playing));
    }
  }

  destroy() {
    this.pair?.destroy();
    this.endTicking();
    this.observer.disconnect();
    this.resizer.disconnect();
    this.keyTarget.removeEventListener("keydown", this.onKey);
    document.removeEventListener("visibilitychange", this.onShow);
    for (const clip of this.clips) clip.detach();
    this.root.replaceChildren();
  }
}

export function mount(element, data) {
  const player = new Player(element, data);
  return {
    destroy: () => player.destroy(),
    play: () => player.play(),
    pause: () => player.pause(),
    seek: (frame) => player.seek(frame),
    tell: (text) => player.tell(text),
  };
}
