// A grid of clips that play in step by one clock. No library, no build step, no network.
//
// mount(element, data) fills the element and returns { destroy, play, pause, seek }. All texts of `data` are untrusted and
// become text nodes. data = { rows, columns: [label], wraps, common: label, notes: [text], standalone, cells: [cell] };
// label = [[axis, value], ...]; cell = { row, column, label, status, reason, width, height (px), frames, fps, mime,
// base64 | src (the clip; neither where there is none), poster (an address), said (a text over the picture) }.

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const ICONS = {
  play: "M3 1.5v13l11-6.5z",
  pause: "M3 2h4v12H3zM9 2h4v12H9z",
  back: "M11 2v12L4.5 8zM2 2h2v12H2z",
  next: "M5 2v12l6.5-6zM12 2h2v12h-2z",
  full: "M1 1h5v2H3v3H1zM10 1h5v5h-2V3h-3zM1 10h2v3h3v2H1zM13 10h2v5h-5v-2h3z",
};
const SEEK_LIMIT_MS = 1500; // a clip that cannot seek must not stop the others

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(name, title, act) {
  const node = make("button", `i2v-${name}`, icon(name));
  node.type = "button";
  node.title = title;
  node.setAttribute("aria-label", title);
  node.addEventListener("click", act);
  return node;
}

function pairs(label) {
  return label.map(([name, value]) => make("span", "i2v-pair", make("span", "i2v-name", `${name} `), make("span", "i2v-value", value)));
}

const words = (label) => label.map(([name, value]) => `${name} ${value}`).join(", ");

function blobAddress(cell) {
  const text = atob(cell.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], { type: cell.mime }));
}

// One clip: a video element that has its file only while it is in view, since a page may hold only so many.
class Clip {
  constructor(cell, player) {
    this.cell = cell;
    this.player = player;
    this.seconds = cell.frames / cell.fps;
    this.live = false; // it has its file
    this.ready = false; // and can be shown at any time
    this.failed = false;
    this.video = make("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.preload = "auto";
    this.video.disablePictureInPicture = true;
    this.video.width = cell.width;
    this.video.height = cell.height;
    this.video.style.aspectRatio = `${cell.width} / ${cell.height}`;
    if (cell.poster) this.video.poster = cell.poster;
    this.video.setAttribute("aria-label", words(cell.label) || "clip");
    this.video.addEventListener("loadeddata", () => {
      this.ready = true;
      this.player.joined(this);
    });
    this.video.addEventListener("error", () => this.fail());
  }

  attach() {
    if (this.live || this.failed) return;
    this.live = true;
    this.address = this.cell.src || blobAddress(this.cell);
    this.video.src = this.address;
  }

  detach() {
    if (!this.live) return;
    this.live = this.ready = false;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    if (!this.cell.src) URL.revokeObjectURL(this.address);
  }

  fail() {
    if (!this.live) return;
    this.detach();
    this.failed = true;
    this.video.after(make("span", "i2v-said", "this browser cannot play the clip"));
  }

  // Where to be at `time` of the clock: there, or in the middle of the frame that is shown then; the last frame when it is over.
  target(time, exact) {
    const last = (this.cell.frames - 0.5) / this.cell.fps;
    if (exact) return Math.min(time, last);
    return Math.min((Math.floor(time * this.cell.fps + 1e-6) + 0.5) / this.cell.fps, last);
  }

  seek(time, exact) {
    const { video } = this;
    video.pause();
    const target = this.target(time, exact);
    if (!video.seeking && Math.abs(video.currentTime - target) < 1e-5) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        video.removeEventListener("seeked", done);
        resolve();
      };
      const timer = setTimeout(done, SEEK_LIMIT_MS);
      video.addEventListener("seeked", done);
      video.currentTime = target;
    });
  }

  start(time, speed) {
    this.video.playbackRate = speed;
    if (time < this.seconds - 0.5 / this.cell.fps) this.video.play().catch(() => {}); // refused, or paused again meanwhile
  }

  // While the clock runs: far off, jump; a little off, go a little faster or slower.
  follow(time, speed) {
    const { video } = this;
    if (video.seeking || video.readyState < 2) return;
    if (time >= this.seconds - 0.5 / this.cell.fps) {
      if (!video.ended && video.paused) video.currentTime = this.target(time, true);
      return; // it plays to its own end and holds its last frame
    }
    const off = video.currentTime - time;
    if (Math.abs(off) > Math.max(Math.min(2 / this.cell.fps, 0.15), 0.05 * speed)) {
      video.currentTime = this.target(time + 0.02 * speed, true);
    } else {
      const nudge = Math.abs(off) < 0.01 ? 0 : Math.abs(off) < 0.03 ? 0.05 : 0.1;
      const rate = speed * (1 - Math.sign(off) * nudge);
      if (video.playbackRate !== rate) video.playbackRate = rate;
    }
    if (video.paused) this.start(time, speed);
  }
}

class Player {
  constructor(element, data) {
    this.root = element;
    this.data = data;
    this.clips = [];
    this.time = 0; // the clock, seconds
    this.speed = 1;
    this.loop = true;
    this.playing = false;
    this.turn = 0; // the latest gathering; those before it are void
    this.gathering = false;
    this.build();
    const timed = this.clips.map((clip) => clip.cell);
    this.fps = Math.max(...timed.map((cell) => cell.fps), 1);
    this.end = Math.max(...this.clips.map((clip) => clip.seconds), 0);
    this.frames = Math.max(Math.ceil(this.end * this.fps - 1e-6), 1);
    this.scrub.max = this.frames - 1;
    this.count.style.minWidth = `${0.85 * this.countText(this.frames - 1).length}ch`; // so that the bar stands still
    this.show();
    this.listen();
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.clips.length && !still) this.play();
    this.tick = this.tick.bind(this);
    this.last = performance.now();
    this.ticking = requestAnimationFrame(this.tick);
  }

  // Building

  build() {
    const { data, root } = this;
    root.classList.add("i2v-player");
    root.tabIndex = 0;
    this.grid = make("div", data.wraps ? "i2v-grid wraps" : "i2v-grid");
    this.scroll = make("div", "i2v-scroll", this.grid);
    const notes = [...(data.common.length ? [`in all: ${words(data.common)}`] : []), ...data.notes];
    root.replaceChildren(this.bar(), make("div", "i2v-stage", this.scroll));
    if (notes.length) this.scroll.parentNode.before(make("ul", "i2v-notes", ...notes.map((note) => make("li", "", note))));
    if (!data.wraps) this.heads();
    for (const cell of data.cells) this.grid.append(this.slot(cell));
    if (!data.wraps) this.gaps();
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
    const speed = make("select", "i2v-speed", ...SPEEDS.map((value) => new Option(`${value}×`, value, value === 1, value === 1)));
    speed.addEventListener("change", () => this.setSpeed(Number(speed.value)));
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
    const { rows, columns } = this.data;
    const sticky = columns.every((label) => words(label).length <= 80); // a tall head would cover the clips
    this.grid.style.gridTemplateColumns = `fit-content(240px) repeat(${columns.length}, auto)`;
    columns.forEach((label, index) => this.head(label, 1, index + 2, sticky ? "column sticky" : "column"));
    rows.forEach((label, index) => this.head(label, index + 2, 1, "row"));
  }

  head(label, row, column, kind) {
    const node = make("div", `i2v-head ${kind}`, ...pairs(label));
    node.style.gridArea = `${row} / ${column}`;
    if (kind !== "row") node.style.width = "var(--cell)";
    this.grid.append(node);
  }

  gaps() {
    const taken = new Set(this.data.cells.map((cell) => `${cell.row + 2} / ${cell.column + 2}`));
    this.data.rows.forEach((_, row) => this.data.columns.forEach((__, column) => {
      const place = `${row + 2} / ${column + 2}`;
      if (taken.has(place)) return;
      const gap = make("div", "i2v-gap", "no run");
      gap.style.gridArea = place;
      this.grid.append(gap);
    }));
  }

  slot(cell) {
    const slot = make("div", "i2v-slot", this.figure(cell));
    if (!this.data.wraps) slot.style.gridArea = `${cell.row + 2} / ${cell.column + 2}`;
    return slot;
  }

  figure(cell) {
    const caption = make("figcaption", "", ...pairs(cell.label));
    if (!cell.base64 && !cell.src && !cell.poster) {
      const failed = make("div", "i2v-failed", make("b", "", cell.status.replaceAll("_", " ")), cell.reason || "");
      return make("figure", "i2v-cell bare", failed, caption);
    }
    const picture = make("div", "i2v-picture");
    if (cell.base64 || cell.src) {
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
    figure.tabIndex = 0;
    figure.title = "Click, or Enter, to enlarge";
    figure.addEventListener("click", () => this.zoom(figure));
    return figure;
  }

  // What people do

  listen() {
    this.keyTarget = this.data.standalone ? document : this.root;
    this.onKey = (event) => this.key(event);
    this.keyTarget.addEventListener("keydown", this.onKey);
    this.onShow = () => document.visibilityState === "visible" && this.playing && this.gather(this.time);
    document.addEventListener("visibilitychange", this.onShow);
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const clip = this.clips.find((one) => one.video === entry.target);
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
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { target } = event;
    const control = target instanceof Element && target.closest("input, select, textarea, button");
    const acts = {
      " ": () => (this.playing ? this.pause() : this.play()),
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Home: () => this.seek(0),
      End: () => this.seek(this.frames - 1),
      Escape: () => this.zoomed && this.zoom(this.zoomed),
      Enter: () => target.classList?.contains("i2v-cell") && !target.classList.contains("bare") && this.zoom(target),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    // A control keeps the keys that mean something to it; the scrub bar's arrows are steps anyway.
    const own = control && control !== this.scrub && !(control.tagName === "BUTTON" && event.key.startsWith("Arrow"));
    if (own && event.key !== "Escape") return;
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
    figure.parentNode.style.minHeight = `${figure.offsetHeight}px`; // the grid keeps its shape behind
    figure.classList.add("zoomed");
    this.zoomed = figure;
  }

  fitting() {
    const widest = Math.max(...this.data.cells.map((cell) => cell.width || 0), 0) || 240;
    const { columns, wraps } = this.data;
    const many = wraps ? Math.min(columns.length, 4) : columns.length;
    const heads = wraps ? 0 : Math.max(...[...this.grid.querySelectorAll(".i2v-head.row")].map((node) => node.offsetWidth), 0) + 10;
    const room = (this.scroll.clientWidth - 24 - heads - 10 * (many - 1)) / Math.max(many, 1);
    // All rows at once, where that leaves the clips large enough to look at.
    const lines = wraps ? Math.ceil(columns.length / Math.max(many, 1)) : this.data.rows.length;
    const taken = 40 + (wraps ? 30 + 20 * Math.max(...columns.map((label) => label.length), 0) : 10) * lines + (wraps ? 0 : this.headHeight());
    const shape = Math.max(...this.data.cells.map((cell) => (cell.width ? cell.height / cell.width : 0)), 0) || 1;
    const tall = (this.scroll.clientHeight - taken) / Math.max(lines, 1) / shape;
    const width = Math.min(room, Math.max(widest, 320), 420);
    return Math.floor(Math.max(96, tall >= 180 ? Math.min(width, tall) : width));
  }

  headHeight() {
    return Math.max(...[...this.grid.querySelectorAll(".i2v-head.column")].map((node) => node.offsetHeight), 0);
  }

  resize(width) {
    if (document.activeElement === this.size) this.sized = true; // chosen: no longer ours to fit
    this.grid.style.setProperty("--cell", `${width}px`);
    this.size.value = width;
  }

  setSpeed(speed) {
    this.speed = speed;
    if (this.playing) this.gather(this.time);
  }

  play() {
    if (this.time >= this.end - 0.75 / this.fps) this.time = 0;
    this.playing = true;
    this.gather(this.time);
    this.show();
  }

  pause() {
    this.seek(this.frame());
  }

  step(frames) {
    this.seek((this.frame() + frames + this.frames) % this.frames);
  }

  // Stop at a frame of the fastest clip, counted from 0.
  seek(frame) {
    this.playing = false;
    this.gather((Math.min(Math.max(frame, 0), this.frames - 1) + 0.5) / this.fps);
    this.show();
  }

  // The clock

  frame() {
    return Math.min(this.frames - 1, Math.floor(this.time * this.fps + 1e-6));
  }

  live() {
    return this.clips.filter((clip) => clip.ready);
  }

  // Bring all clips to one time; go on from there together.
  async gather(time) {
    this.turn += 1;
    const mine = this.turn;
    this.gathering = true;
    this.time = time;
    await Promise.all(this.live().map((clip) => clip.seek(time, this.playing)));
    if (mine !== this.turn) return;
    this.gathering = false;
    this.last = performance.now();
    if (this.playing) for (const clip of this.live()) clip.start(time, this.speed);
  }

  // A clip came into view.
  joined(clip) {
    clip.seek(this.time, this.playing).then(() => this.playing && !this.gathering && clip.start(this.time, this.speed));
  }

  tick(now) {
    this.ticking = requestAnimationFrame(this.tick);
    const passed = Math.min((now - this.last) / 1000, 0.25);
    this.last = now;
    if (!this.playing || this.gathering) return;
    // The longest clip in view leads, so that a browser short of time slows all down alike; without one, time itself does.
    const live = this.live();
    const leader = live.reduce((best, clip) => (!best || clip.seconds > best.seconds ? clip : best), null);
    const leads = leader && this.time < leader.seconds - 0.5 / leader.cell.fps;
    this.time = leads ? Math.max(leader.video.currentTime, 0) : this.time + passed * this.speed;
    if (leads && leader.video.paused && !leader.video.ended) leader.start(this.time, this.speed);
    if (leads && leader.video.playbackRate !== this.speed) leader.video.playbackRate = this.speed;
    if (leads && leader.video.ended) this.time = leader.seconds;
    if (this.time >= this.end - 0.002) {
      if (this.loop) this.gather(0);
      else this.seek(this.frames - 1);
    } else {
      for (const clip of live) if (!leads || clip !== leader) clip.follow(this.time, this.speed);
    }
    this.show();
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
    cancelAnimationFrame(this.ticking);
    this.turn += 1;
    this.playing = false;
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
  };
}
