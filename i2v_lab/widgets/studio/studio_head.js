// The head of the studio, with its switches; what holds for all of its buttons and entries. Read before studio.js, as one module with it.

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** What this browser keeps; a page without storage keeps nothing. */
const kept = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* full, or forbidden */ } },
};

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Calls `then` with the studio around an element, once it is in the page. */
function inStudio(el, then) {
  const look = () => (el.isConnected ? then(el.closest(".i2vs-studio") ?? el) : requestAnimationFrame(look));
  look();
}

const page = document.documentElement;
/** Whether the page is dark where nobody chose: by JupyterLab's theme, else by the system. */
function darkByItself() {
  const theme = "voila" in document.body.dataset ? undefined : document.body.dataset.jpThemeLight;
  return theme ? theme === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
}
const isDark = () => (page.dataset.theme ? page.dataset.theme === "dark" : darkByItself());
function choose(theme) {
  if (theme) page.dataset.theme = theme;
  else delete page.dataset.theme;
}

function head({ model, el }) {
  const gone = new AbortController();
  const { signal } = gone;
  const title = make("h1");
  const about = make("small");
  const switches = make("div", "i2vs-switches");
  const languages = { en: make("button", "jupyter-button", "English"), zh: make("button", "jupyter-button", "中文") };
  const dark = make("button", "jupyter-button");
  for (const [language, button] of Object.entries(languages)) {
    Object.assign(button, { type: "button", lang: language });
    button.addEventListener("click", () => {
      kept.set("i2v-language", language);
      page.dataset.lang = language;
      model.send({ type: "language", language });
    });
    switches.append(button);
  }
  dark.type = "button";
  dark.addEventListener("click", () => {
    const wanted = isDark() ? "light" : "dark";
    const theme = wanted === (darkByItself() ? "dark" : "light") ? null : wanted;
    kept.set("i2v-theme", theme);
    choose(theme);
    fill();
  });
  switches.append(dark);
  el.classList.add("i2vs-head");
  el.append(title, about, switches);
  const fill = () => {
    const words = model.get("words");
    title.textContent = words.name;
    about.textContent = model.get("about");
    for (const [language, button] of Object.entries(languages)) {
      button.hidden = !model.get("switch");
      button.setAttribute("aria-pressed", String(language === model.get("language")));
    }
    dark.textContent = isDark() ? "☀" : "☾";
    dark.title = isDark() ? words.light : words.dark;
    dark.setAttribute("aria-label", dark.title);
    el.closest(".i2vs-studio")?.setAttribute("lang", model.get("language"));
    el.closest(".i2vs-studio")?.setAttribute("data-lang", model.get("language"));
  };
  const keep = () => model.get("place") && kept.set(`i2v-studio:${model.get("place")}`, JSON.stringify(model.get("form")));
  const stored = () => { try { return JSON.parse(kept.get(`i2v-studio:${model.get("place")}`)) ?? {}; } catch { return {}; } };
  for (const name of ["words", "about", "language"]) model.on(`change:${name}`, fill);
  model.on("change:form", keep);
  choose(kept.get("i2v-theme") || page.dataset.theme || null);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fill, { signal });
  inStudio(el, (root) => {
    fill();
    if ("voila" in document.body.dataset && !document.querySelector("main, [role=main]")) root.setAttribute("role", "main");
    const language = kept.get("i2v-language") || model.get("preferred") || navigator.language;
    if (model.get("switch")) page.dataset.lang = language.toLowerCase().startsWith("zh") ? "zh" : "en";
    model.send({ type: "begin", language, form: model.get("place") ? stored() : {} });
    hold(root, signal);
    tellEntries(root, model, signal);
  });
  return () => gone.abort();
}

/** A pressed button stays under the pointer, whatever appears or vanishes above it. */
function hold(root, signal) {
  root.addEventListener("pointerdown", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { left, top } = button.getBoundingClientRect();
    const pressed = new AbortController();
    let [x, y] = [0, 0];
    const stay = () => {
      const now = button.getBoundingClientRect();
      if (Math.abs(now.left - left) < 0.5 && Math.abs(now.top - top) < 0.5) return;
      [x, y] = [x + left - now.left, y + top - now.top];
      Object.assign(button.style, { transform: `translate(${x}px, ${y}px)`, zIndex: 100 }); // above what is in that place now
    };
    const eachFrame = () => { if (!pressed.signal.aborted) { stay(); requestAnimationFrame(eachFrame); } };
    const watch = new MutationObserver(stay); // before anything else sees the change
    watch.observe(root, { subtree: true, childList: true, characterData: true, attributes: true });
    const leave = () => { pressed.abort(); watch.disconnect(); setTimeout(() => Object.assign(button.style, { transform: "", zIndex: "" }), 50); };
    for (const type of ["pointerup", "pointercancel", "blur"]) window.addEventListener(type, leave, { signal: pressed.signal });
    eachFrame();
  }, { signal });
}

/** Before a click that makes clips, sends what was typed last: a busy kernel gets the changes of an entry late. */
function tellEntries(root, model, signal) {
  const edited = new Set();
  root.addEventListener("input", (event) => event.target.matches("input, textarea") && edited.add(event.target), { signal, capture: true });
  for (const type of ["pointerdown", "keydown"]) { // another control may set the entries: then they are its own
    root.addEventListener(type, (event) => {
      if (type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
      if (!event.target.closest("input, textarea, .i2vs-primary")) edited.clear();
    }, { signal, capture: true });
  }
  root.addEventListener("click", (event) => {
    if (!event.target.closest(".i2vs-primary") || !edited.size) return;
    const fields = {};
    const axes = [...root.querySelectorAll(".i2vs-sweep .i2vs-axis")];
    const sweep = { axes: {} };
    for (const entry of edited) {
      const control = entry.closest("[class*=i2vs-field-]");
      const axis = axes.indexOf(entry.closest(".i2vs-axis"));
      if (control) fields[[...control.classList].find((name) => name.startsWith("i2vs-field-")).slice(11)] = entry.value;
      else if (axis >= 0) sweep.axes[axis] = entry.value;
      else if (entry.closest(".i2vs-sweep-name")) sweep.name = entry.value;
    }
    edited.clear();
    model.send({ type: "entries", fields, sweep });
  }, { signal, capture: true });
}

/** A button that opens a page which the kernel sends in pieces. */
function pageLink({ model, el }) {
  const open = make("button", "jupyter-button i2vs-open-page");
  const line = make("small");
  let tab = null;
  let pieces = [];
  el.classList.add("i2vs-page");
  open.type = "button";
  line.setAttribute("role", "status");
  el.append(open, line);
  const fill = () => {
    el.classList.toggle("i2vs-gone", !model.get("path"));
    open.textContent = model.get("text");
    open.title = model.get("help");
    line.textContent = model.get("path");
  };
  open.addEventListener("click", () => {
    tab = window.open("about:blank"); // now: later the browser would take it for a pop-up
    pieces = [];
    model.send({ type: "open" });
  });
  const hear = (message, buffers) => {
    if (message?.type !== "page" || !tab) return;
    if (message.refused) { tab.close(); tab = null; line.textContent = message.refused; return; }
    pieces.push(...buffers.map(bytes).filter(Boolean));
    if (!message.last) return;
    tab.location = URL.createObjectURL(new Blob(pieces, { type: "text/html;charset=utf-8" }));
    tab = null;
  };
  model.on("msg:custom", hear);
  for (const name of ["path", "text", "help"]) model.on(`change:${name}`, fill);
  fill();
  return () => model.off("msg:custom", hear);
}
