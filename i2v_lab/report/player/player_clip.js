// One clip, and the cache of clips that were fetched.

const SEEK_LIMIT_MS = 1500; // a clip that cannot seek must not stop the others
const REST_MS = 120; // a clip that stands for so long is painted once more
const SAME_FRAME = 1e-3; // seconds
const SLOW_MS = 8000; // after so long the user sees what the clip waits for
const AT_ONCE = 4; // clips that are requested at a time
const SHELF_BYTES = 256e6;

// Clips that the kernel sent. Where they are more than SHELF_BYTES, those out of view are dropped, oldest first.
class Shelf {
  constructor(load) {
    this.load = load; // (key) => Promise<Blob>
    this.kept = new Map();
    this.queue = [];
    this.running = 0;
  }

  take(key) {
    let entry = this.kept.get(key);
    if (entry) {
      this.kept.delete(key); // to the end: the newest
    } else {
      entry = { key, users: 0, bytes: 0 };
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      entry.promise.catch(() => {});
      this.queue.push(entry);
    }
    this.kept.set(key, entry);
    entry.users += 1;
    this.next();
    return entry.promise;
  }

  next() {
    while (this.running < AT_ONCE && this.queue.length) this.fetch(this.queue.shift());
  }

  fetch(entry) {
    if (!entry.users) { // it left view before its turn came
      this.drop(entry);
      return;
    }
    this.running += 1;
    const done = () => {
      this.running -= 1;
      this.next();
    };
    this.load(entry.key).then(
      (blob) => {
        entry.bytes = blob.size;
        entry.resolve(blob);
        this.trim();
        done();
      },
      (error) => {
        this.drop(entry);
        entry.reject(error);
        done();
      },
    );
  }

  drop(entry) {
    if (this.kept.get(entry.key) === entry) this.kept.delete(entry.key);
  }

  release(key) {
    const entry = this.kept.get(key);
    if (entry) entry.users -= 1;
    this.trim();
  }

  trim() {
    let total = [...this.kept.values()].reduce((sum, entry) => sum + entry.bytes, 0);
    for (const entry of this.kept.values()) {
      if (total <= SHELF_BYTES) return;
      if (entry.users || !entry.bytes) continue;
      total -= entry.bytes;
      this.drop(entry);
    }
  }
}

// One clip: a video element that has its file only while it is in view, since a page may hold only so many.
class Clip {
  constructor(cell, player, whole = false) {
    this.cell = cell;
    this.player = player;
    this.key = `${cell.number}${whole ? " whole" : ""}`; // whole: the file itself where the grid has a small copy
    this.seconds = cell.frames / cell.fps;
    this.live = false; // it has its file, or waits for it
    this.ready = false; // it can be shown at any time
    this.failed = false;
    this.turn = 0;
    this.still = null; // seconds at which it stands
    this.rest = 0; // the timer of repaint
    this.video = make("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.preload = "auto";
    this.video.disablePictureInPicture = true;
    this.video.width = cell.width;
    this.video.height = cell.height;
    this.video.style.aspectRatio = `${cell.width} / ${cell.height}`;
    if (cell.poster) {
      this.video.poster = cell.poster;
      this.video.style.background = `url("${cell.poster}") center / contain no-repeat`; // until a busy browser paints the first frame
    }
    say(this.video, () => this.video.setAttribute("aria-label", player.nameOf(cell)));
    this.video.addEventListener("loadeddata", () => {
      this.ready = true;
      this.player.joined(this);
    });
    this.video.addEventListener("error", () => this.fail(t("cannot_play")));
  }

  async attach() {
    if (this.live || this.failed) return;
    this.live = true;
    this.turn += 1;
    if (this.cell.src) {
      this.video.src = this.cell.src;
    } else if (this.cell.base64) {
      this.show(blobOf(this.cell));
    } else {
      await this.fetch(this.turn);
    }
  }

  async fetch(turn) {
    const slow = setTimeout(() => this.say(t("waiting")), SLOW_MS);
    try {
      const blob = await this.player.shelf.take(this.key);
      if (turn === this.turn) this.show(blob); // otherwise it left the view meanwhile
    } catch (error) {
      if (turn === this.turn) this.fail(error.message);
    } finally {
      clearTimeout(slow);
      this.said?.remove();
    }
  }

  show(blob) {
    this.address = URL.createObjectURL(blob);
    this.video.src = this.address;
  }

  detach() {
    if (!this.live) return;
    this.live = this.ready = false;
    this.turn += 1;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    if (!this.cell.src && !this.cell.base64) this.player.shelf.release(this.key);
  }

  say(text) {
    this.said?.remove();
    this.said = make("span", "i2v-said", text);
    this.video.after(this.said);
  }

  fail(reason) {
    if (!this.live) return;
    this.detach();
    this.failed = true;
    this.video.after(make("span", "i2v-said", reason));
    this.video.classList.add("failed");
  }

  // The time of the clip for `time` of the clock: the same, or the middle of its frame; the last frame after the end.
  target(time, exact) {
    const last = (this.cell.frames - 0.5) / this.cell.fps;
    if (exact) return Math.min(time, last);
    return Math.min((Math.floor(time * this.cell.fps + 1e-6) + 0.5) / this.cell.fps, last);
  }

  seek(time, exact) {
    const { video } = this;
    video.pause();
    const target = this.target(time, exact);
    this.still = exact ? null : target;
    if (!video.seeking && Math.abs(video.currentTime - target) < 1e-5) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        video.removeEventListener("seeked", done);
        clearTimeout(this.rest);
        this.rest = setTimeout(() => this.repaint(), REST_MS);
        resolve();
      };
      const timer = setTimeout(done, SEEK_LIMIT_MS);
      video.addEventListener("seeked", done);
      video.currentTime = target;
    });
  }

  // A busy Chromium sometimes keeps an earlier frame on the screen after a seek, while all its states name the right one.
  // It paints again after another seek, and a seek to the same time is none.
  repaint() {
    const { still, video } = this;
    if (still === null || video.seeking || !video.paused || Math.abs(video.currentTime - still) > SAME_FRAME / 2) return;
    video.currentTime = still + SAME_FRAME;
  }

  start(time, speed) {
    this.video.playbackRate = speed;
    if (time < this.seconds - 0.5 / this.cell.fps) this.video.play().catch(() => {}); // refused, or paused again meanwhile
  }

  // While the clock runs: seek if far off, play a little faster or slower if a little off.
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
