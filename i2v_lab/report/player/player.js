// A grid of clips that play in step by one clock. No library, no build step, no network. player_*.js come before it.
//
// mount(element, data) fills the element and returns { destroy, play, pause, seek, tell }. All texts of `data` are untrusted and
// become text nodes; notes, reasons and `said` are a text or [English, Chinese]. data = { rows, columns: [label], wraps, common: label, notes: [text], standalone,
// axes: [{ name, values: [text] }] (what differs, in order), fields: [name] (numbers to sort by),
// best: { column, is: lowest | highest } or null, plain (no tools), cells: [cell] }; label = [[axis, value], ...];
// cell = { number, row, column, label, status, reason, width, height (px), frames, fps, mime, values: { field: number },
// base64 | src | lazy (the clip; none of them where there is none), poster (an address), said (a text over the picture), kind (of a
// file that is shown as a copy), code: [number of a line] (its script; the lines themselves are in data.lines) }.
// A kernel adds functions: load(key) => Promise<Blob> for lazy cells; rate and note, see player_opinions.js.

class Player extends Clock {
  constructor(element, data) {
    super();
    this.root = element;
    this.data = { axes: [], fields: [], best: null, ...data };
    this.axisNames = this.data.axes.map((axis) => axis.name);
    this.shelf = new Shelf(data.load || (() => Promise.reject(new Error(t("no_such_clip")))));
    this.slots = [];
    this.chosen = [];
    this.lines = 1;
    this.endLooks = followLooks(element, () => this.relanguage());
    this.build();
    this.measureClips();
    this.scrub.max = this.frames - 1;
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
    root.setAttribute("role", "region");
    root.dataset.lmSuppressShortcuts = "true"; // keys that are pressed here are not shortcuts of JupyterLab
    named(root, "title");
    this.order = new Order(this);
    this.grid = make("div", "i2v-grid");
    this.scroll = named(make("div", "i2v-scroll", this.grid), "clips");
    Object.assign(this.scroll, { tabIndex: 0, role: "group" });
    this.closer = button("close", "shrink", () => this.shrink());
    this.closer.classList.add("i2v-shrink");
    this.stage = make("div", "i2v-stage", this.scroll, this.closer);
    this.heads(data.rows, data.columns, data.wraps);
    for (const cell of data.cells) this.slots.push(this.slot(cell));
    root.replaceChildren(this.bar(), this.stage);
    this.axes = new Axes(this);
    const tools = data.plain ? [] : [...this.axes.controls(), ...this.order.controls(), ...this.pairControls()];
    if (tools.length) this.stage.before(make("div", "i2v-bar i2v-tools", ...tools));
    this.opener.hidden = !tools.length;
    if (this.order.panel) this.stage.before(this.order.panel);
    this.stage.before(this.remarks());
    if (!data.cells.length) this.grid.append(told(make("p", "i2v-empty"), "no_clips"));
  }

  // What the reader is told: in a line, or folded where it is more.
  remarks() {
    const { common, notes } = this.data;
    const lines = [...(common.length ? [() => t("in_all", { label: words(common) })] : []), ...notes.map((note) => () => inWords(note))];
    this.notes = make("ul", "i2v-notes", ...lines.map((line) => spoken(make("li"), line)));
    this.notes.hidden = !lines.length;
    if (lines.length < 3) return this.notes;
    return make("details", "i2v-remarks", told(make("summary"), "remarks", { count: lines.length }), this.notes);
  }

  bar() {
    this.toggle = button("play", "play", () => (this.playing ? this.pause() : this.play()));
    const back = button("back", "back", () => this.step(-1));
    const next = button("next", "next", () => this.step(1));
    this.scrub = make("input", "i2v-scrubber");
    Object.assign(this.scrub, { type: "range", min: 0, step: 1, value: 0 });
    named(this.scrub, "frame");
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
    const size = labelled("size", this.size);
    size.classList.add("i2v-size");
    return make(
      "div", "i2v-bar",
      make("span", "i2v-buttons", back, this.toggle, next),
      make("span", "i2v-scrub", this.scrub, this.count),
      labelled("speed", speed), make("label", "", loop, told(make("span"), "loop")), size, this.looks(),
    );
  }

  // The buttons at the end of the bar.
  looks() {
    this.opener = wordButton("opener", "tools", "tools", () => {
      this.opener.setAttribute("aria-expanded", String(this.root.classList.toggle("opened")));
    });
    this.opener.setAttribute("aria-expanded", "false");
    const found = make("span", "i2v-buttons", this.opener);
    if (window.parent === window) found.append(wordButton("language", "language", "language_help", chooseLanguage)); // else the page around has it
    if (window.parent === window && this.data.standalone) found.append(button("theme", "theme", () => chooseTheme(this.root)));
    const full = () => (document.fullscreenElement ? document.exitFullscreen() : this.root.requestFullscreen());
    if (document.fullscreenEnabled) found.append(button("full", "full", full));
    return found;
  }

  relanguage() {
    sayAgain(this.root, ...this.slots.map((slot) => slot.node));
    this.order.mark();
    this.show();
  }

  // The heads of a grid; none in a list.
  heads(rows, columns, wraps) {
    this.list = wraps;
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
    if (this.notes.parentNode.tagName === "DETAILS") this.notes.parentNode.open = true;
  }

  head(label, kind) {
    return make("div", `i2v-head ${kind}`, ...pairs(label, this.axisNames));
  }

  // What a clip is called; in a blind comparison, by its side alone.
  nameOf(cell) {
    return this.data.plain ? cell.label.map(([, side]) => t(`side_${side}`)).join() : words(cell.label) || t("clip");
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
    const caption = make("figcaption", "", ...(this.data.plain ? [spoken(make("b"), () => this.nameOf(cell))] : pairs(cell.label, this.axisNames)));
    if (!this.data.plain) caption.append(...this.facts(cell));
    if (!playable(cell) && !cell.poster) return make("figure", "i2v-cell bare", this.failure(cell), caption);
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
    if (cell.said) picture.append(spoken(make("span", "i2v-said"), () => inWords(cell.said)));
    const figure = make("figure", "i2v-cell", picture, caption);
    if (this.data.note && cell.named) figure.append(...noteField(cell, this.data.note));
    if (cell.code && !this.data.plain) picture.append(codeButton(cell, this));
    if (playable(cell) && !this.data.plain && this.data.cells.length > 1) picture.append(this.chooseButton(cell));
    figure.tabIndex = 0;
    titled(picture, "enlarge");
    figure.addEventListener("click", (event) => {
      if (event.target.closest("button, textarea")) return;
      if (playable(cell) && (event.shiftKey || this.picking)) this.choose(cell);
      else this.zoom(figure);
    });
    return figure;
  }

  // What is known of a clip besides its label; shown in the large view, of files also in the list.
  facts(cell) {
    const own = Object.entries(cell.values).filter(([name]) => !this.axisNames.includes(name)).map(([name, value]) => [name, figureText(value)]);
    const found = own.length ? [make("span", "i2v-facts", ...pairs(own))] : [];
    if (!cell.width) return found;
    const file = cell.kind || cell.label.some(([name]) => name === "file" || name === "name");
    const copied = () => (cell.kind ? ` · ${t("copy_of", { kind: cell.kind })}` : "");
    const text = () => `${cell.width}×${cell.height} · ${figureText(cell.fps)} fps${copied()}`;
    return [spoken(make("span", file ? "i2v-about file" : "i2v-about"), text), ...found];
  }

  // In place of a clip: what became of it.
  failure(cell) {
    const key = `status_${cell.status.replaceAll(" ", "_")}`;
    const quiet = ["planned", "running"].includes(cell.status);
    const status = spoken(make("b"), () => (key in TEXTS.en ? t(key) : cell.status.replaceAll("_", " ")));
    const reason = spoken(make("span"), () => inWords(cell.reason) || (quiet ? "" : t("no_reason")));
    return make("div", quiet ? "i2v-failed quiet" : "i2v-failed", status, reason);
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

  // Two clips together

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

  openPair(mode) {
    this.picking = null;
    this.saidChosen();
    if (this.zoomed) this.shrink();
    this.pair = new Pair(this, this.leftFirst(this.chosen), mode);
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
    // After a click the keys are the player's again; who uses the keyboard keeps the control that has the focus.
    this.pointed = false;
    for (const kind of ["pointerdown", "keydown"]) this.root.addEventListener(kind, () => (this.pointed = kind === "pointerdown"), true);
    for (const kind of ["click", "change"]) this.root.addEventListener(kind, () => this.refocus());
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const clip = this.seen.get(entry.target);
        if (entry.isIntersecting) clip.attach();
        else clip.detach();
      }
    }, { rootMargin: "100px" });
    for (const clip of this.clips) this.observer.observe(clip.video);
    this.resizer = new ResizeObserver(() => {
      this.root.classList.toggle("narrow", this.root.clientWidth < 620);
      if (!this.sized && !this.root.classList.contains("large")) this.resize(this.fitting());
    });
    this.resizer.observe(this.root);
    this.resize(this.fitting());
  }

  refocus() {
    const { activeElement } = document;
    if (!this.pointed || (this.root.contains(activeElement) && !activeElement.matches("button, select, input"))) return;
    this.root.focus({ preventScroll: true });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || (this.code && event.key !== "Escape")) return;
    const { target } = event;
    const acts = {
      " ": () => (this.playing ? this.pause() : this.play()),
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Home: () => this.seek(0),
      End: () => this.seek(this.frames - 1),
      Escape: () => this.escape(),
      Enter: () => target.classList?.contains("i2v-cell") && !target.classList.contains("bare") && target.click(),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    const own = ownKeys(target, this.scrub).includes(event.key);
    if (own && event.key !== "Escape") return;
    if (target.tagName === "TEXTAREA") target.blur(); // which saves what was written
    event.preventDefault();
    acts[event.key]();
  }

  escape() {
    if (this.code) this.closeCode();
    else if (this.pair) this.closePair();
    else if (this.zoomed) this.shrink();
    else if (this.picking) {
      this.picking = null;
      this.saidChosen();
    }
  }

  zoom(figure) {
    if (this.zoomed === figure) {
      this.shrink();
      return;
    }
    const picture = figure.querySelector(".i2v-picture");
    const { offsetWidth, offsetHeight } = picture;
    figure.parentNode.style.minHeight = `${figure.offsetHeight}px`; // so that the grid behind keeps its shape
    this.zoomed = figure;
    this.grow();
    figure.classList.add("zoomed");
    Object.assign(picture.style, { minWidth: `${offsetWidth}px`, minHeight: `${offsetHeight}px` }); // it never shrinks
    for (const slot of this.slots) slot.node.inert = !slot.node.contains(figure);
    figure.focus({ preventScroll: true });
  }

  shrink() {
    const figure = this.zoomed;
    this.zoomed = null;
    figure.classList.remove("zoomed");
    figure.parentNode.style.minHeight = "";
    Object.assign(figure.querySelector(".i2v-picture").style, { minWidth: "", minHeight: "" });
    for (const slot of this.slots) slot.node.inert = false;
    this.ungrow();
    figure.focus({ preventScroll: true });
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
    if (whole >= 150) return Math.floor(Math.min(whole, most));
    const wide = room(this.wraps ? Math.max(1, Math.min(4, Math.floor(this.scroll.clientWidth / 170))) : choices[0]);
    return Math.floor(Math.max(96, Math.min(wide, Math.max(own, 320), 420)));
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

  countText(frame) {
    return t("frame_count", { frame: frame + 1, frames: this.frames, seconds: (frame / this.fps).toFixed(2) });
  }

  show() {
    const frame = this.frame();
    if (this.scrub.value !== String(frame)) this.scrub.value = frame;
    const text = this.countText(frame);
    if (this.count.textContent !== text) this.count.textContent = text;
    if (this.counted !== language) {
      this.counted = language;
      this.count.style.minWidth = `${0.85 * this.countText(this.frames - 1).length}ch`; // so that the bar keeps its width
    }
    if (this.shown !== this.playing) {
      this.shown = this.playing;
      this.toggle.replaceChildren(icon(this.playing ? "pause" : "play"));
      this.toggle.setAttribute("aria-pressed", String(this.playing));
    }
  }

  destroy() {
    this.pair?.destroy();
    if (this.root.classList.contains("large")) this.ungrow();
    this.endLooks();
    this.endTicking();
    this.observer.disconnect();
    this.resizer.disconnect();
    this.keyTarget.removeEventListener("keydown", this.onKey);
    document.removeEventListener("visibilitychange", this.onShow);
    for (const clip of this.clips) clip.detach();
    this.root.replaceChildren();
  }
}

// The keys that a control uses itself. On the scrub bar the arrow keys are steps of all clips anyway.
function ownKeys(target, scrub) {
  const control = target instanceof Element && target.closest("input, select, textarea, button, summary");
  if (!control || control === scrub) return [];
  if (control.type === "range") return ["ArrowLeft", "ArrowRight", "Home", "End"];
  if (control.type === "checkbox" || control.matches("button, summary")) return [" ", "Enter"];
  return [" ", "Enter", "ArrowLeft", "ArrowRight", "Home", "End"];
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
