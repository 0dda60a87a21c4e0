// A grid of clips that play in step by one clock. No library, no build step, no network. player_*.js come before it.
//
// mount(element, data) fills the element and returns { destroy, play, pause, seek, tell }. All texts of `data` are untrusted and
// become text nodes; notes, reasons and `said` are a text or [English, Chinese]. data = { rows, columns: [label], wraps, common: label, notes: [text], standalone,
// axes: [{ name, values: [text] }] (what differs, in order), fields: [name] (numbers to sort by),
// best: { column, is: lowest | highest } or null, plain (no tools), cells: [cell] }; label = [[axis, value], ...];
// cell = { number, row, column, label, status, reason, width, height (px), frames, fps, mime, values: { field: number },
// base64 | src | lazy (the clip; none of them where there is none), reference (the number of the cell that it is compared with, or null), poster (an address), said (a text over the picture), kind (of a
// file that is shown as a copy), code: [number of a line] (its script; the lines themselves are in data.lines) }.
// A kernel adds functions: load(key) => Promise<Blob> for lazy cells; rate and note, see player_opinions.js.

class Player extends Pairing {
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
    Object.assign(this.size, { type: "range", min: 72, max: 640, step: 8 });
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
    const found = make("span", "i2v-buttons i2v-looks", this.opener);
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

  // Show an error to the user.
  tell(text) {
    this.notes.hidden = false;
    this.notes.querySelector(".problem")?.remove();
    this.notes.prepend(make("li", "problem", text));
    if (this.notes.parentNode.tagName === "DETAILS") this.notes.parentNode.open = true;
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
    if (playable(cell) && !this.data.plain && this.data.cells.length > 1) picture.append(this.chooseButton(cell), ...this.againstButton(cell));
    figure.tabIndex = 0;
    titled(picture, "enlarge");
    figure.addEventListener("click", (event) => {
      if (event.target.closest("button, textarea, summary")) return;
      if (playable(cell) && (event.shiftKey || this.picking)) this.choose(cell);
      else this.zoom(figure);
    });
    return figure;
  }

  // What is known of a clip besides its label; shown in the large view, of files also in the list.
  facts(cell) {
    const own = Object.entries(cell.values).filter(([name]) => !this.axisNames.includes(name)).map(([name, value]) => [name, figureText(value)]);
    const found = own.length ? [make("details", "i2v-facts", told(make("summary"), "figures", { count: own.length }), ...pairs(own))] : [];
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
      r: () => this.against(target),
      d: () => this.pair?.turn(this.pair.mode === "wipe" ? "difference" : "wipe"),
      Enter: () => target.classList?.contains("i2v-cell") && !target.classList.contains("bare") && target.click(),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    const typed = event.key.length === 1 && event.key !== " " && target.matches?.("textarea, select, input[type=search], input[type=text]");
    const own = typed || ownKeys(target, this.scrub).includes(event.key);
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

  // The key r: the clip that has the focus, or is enlarged, against its reference; again, back to all clips.
  against(target) {
    const slot = this.data.plain || target === this.root ? null : this.slots.find(({ node }) => node.contains(this.zoomed || target));
    if (this.pair) this.closePair();
    else if (slot) this.openAgainst(slot.cell);
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
