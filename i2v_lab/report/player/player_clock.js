// The clock that all clips follow. A subclass has show(), which is called when the time changes.

class Clock {
  constructor() {
    this.clips = [];
    this.time = 0; // seconds
    this.speed = 1;
    this.loop = true;
    this.playing = false;
    this.turn = 0; // the number of the latest seek of all clips; earlier ones are cancelled
    this.gathering = false;
  }

  // Frames are counted by the fastest clip; the longest clip sets the end.
  measureClips() {
    this.fps = Math.max(...this.clips.map((clip) => clip.cell.fps), 1);
    this.end = Math.max(...this.clips.map((clip) => clip.seconds), 0);
    this.frames = Math.max(Math.ceil(this.end * this.fps - 1e-6), 1);
  }

  begin() {
    this.tick = this.tick.bind(this);
    this.last = performance.now();
    this.ticking = requestAnimationFrame(this.tick);
  }

  endTicking() {
    cancelAnimationFrame(this.ticking);
    this.turn += 1;
    this.playing = false;
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

  frame() {
    return Math.min(this.frames - 1, Math.floor(this.time * this.fps + 1e-6));
  }

  live() {
    return this.clips.filter((clip) => clip.ready);
  }

  // Seek all clips to one time, then play on together.
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
    // The longest clip in view leads, so that a slow browser slows all clips equally; without a clip, the time leads.
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
}
