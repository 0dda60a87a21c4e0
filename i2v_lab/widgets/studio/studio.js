// The page's side of the studio: drop zone, strip of clips, screen. A plain module: no build step, no network.
// Texts come from outside (prompts, names of files): they are set as text and never as markup.

const PIECE = 4 * 2 ** 20; // bytes; the server loses messages above 10 MiB silently
const PATIENCE = 4000; // ms without an answer from the kernel until the page says so

const bytes = (view) => (view?.byteLength ? new Blob([view.buffer ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : view]) : null);

/** The URL of some bytes; the one before is revoked. */
function source() {
  let url = "";
  return (view, mime) => {
    if (url) URL.revokeObjectURL(url);
    const blob = bytes(view);
    url = blob ? URL.createObjectURL(blob.slice(0, blob.size, mime)) : "";
    return url;
  };
}

/** Sends one file in pieces, each when the one before was answered; `group` says which of how many it is. */
async function upload(model, file, told, group) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  let answered;
  const hear = (message) => message?.id === id && answered?.(message);
  model.on("msg:custom", hear);
  const ask = (message, buffers) =>
    new Promise((resolve) => {
      const late = setTimeout(() => told({ slow: true }), PATIENCE);
      answered = (answer) => { clearTimeout(late); resolve(answer); };
      model.send({ ...message, id }, undefined, buffers);
    });
  try {
    let answer = await ask({ type: "begin", name: file.name || "pasted.png", size: file.size, group });
    while (!answer.refused && answer.got < file.size) {
      told({ share: answer.got / file.size });
      const piece = await file.slice(answer.got, answer.got + PIECE).arrayBuffer();
      answer = await ask({ type: "piece", at: answer.got }, [piece]);
    }
    told(answer.refused ? { refused: answer.refused } : { done: true });
  } catch (error) {
    told({ refused: String(error?.message ?? error) });
  } finally {
    model.off("msg:custom", hear);
  }
}

/** ipywidgets' fold takes no keys, its sliders and its buttons with a sign have no names: give them those. */
function fix(root, signal) {
  const look = () => {
    for (const head of root.querySelectorAll(":is(.jupyter-widget-Collapse-header, .p-Collapse-header):not([tabindex])")) {
      const tell = () => head.setAttribute("aria-expanded", String(/(jupyter-widget|p)-Collapse-open/.test(head.parentElement.className)));
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      head.addEventListener("click", () => setTimeout(tell), { signal });
      head.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), head.click()), { signal });
      tell();
    }
    for (const handle of root.querySelectorAll(".i2vs-control .noUi-handle:not([aria-label])")) {
      handle.setAttribute("aria-label", handle.closest(".i2vs-control").querySelector(".widget-label")?.textContent ?? "");
    }
    for (const button of root.querySelectorAll(".i2vs-small[title]")) { // a sign alone says nothing
      if (button.ariaLabel !== button.title) button.ariaLabel = button.title;
    }
  };
  const watch = new MutationObserver(look);
  watch.observe(root, { childList: true, subtree: true });
  signal.addEventListener("abort", () => watch.disconnect());
  look();
}

function drop({ model, el }) {
  const words = model.get("words");
  const zone = make("label", "i2vs-zone");
  const input = make("input", "i2vs-hidden");
  const image = make("img");
  const hint = make("span", "i2vs-hint");
  const bar = make("progress");
  const line = make("span", "i2vs-upload");
  input.type = "file";
  input.multiple = true;
  input.accept = "image/*,video/mp4,video/webm,.mp4,.webm,.gif";
  input.setAttribute("aria-label", words.choose);
  zone.title = words.choose;
  hint.textContent = words.hint;
  bar.max = 1;
  bar.hidden = true;
  line.setAttribute("role", "status");
  zone.append(input, image, hint);
  el.classList.add("i2vs-drop");
  el.append(zone, bar, line);

  const urlOf = source();
  const show = () => {
    const url = urlOf(model.get("picture"), "image/jpeg");
    image.hidden = !url;
    if (url) image.src = url;
    image.alt = model.get("alt");
    zone.classList.toggle("empty", !url);
  };
  model.on("change:picture", show);
  model.on("change:alt", show);
  show();

  let going = false;
  const take = async (files) => {
    if (!files.length || going) return;
    going = true;
    for (const [place, file] of files.entries()) {
      const name = files.length > 1 ? `${file.name} (${place + 1}/${files.length})` : file.name;
      bar.hidden = false;
      bar.value = 0;
      line.textContent = `${words.sending} ${name}`;
      await upload(model, file, (where) => {
        if (where.share !== undefined) { bar.value = where.share; line.textContent = `${words.sending} ${name} · ${Math.round(100 * where.share)} %`; }
        if (where.slow) line.textContent = words.slow;
        if (where.refused) line.textContent = where.refused;
        if (where.done) line.textContent = "";
        line.classList.toggle("i2vs-bad", Boolean(where.refused));
      }, [place, files.length]);
    }
    bar.hidden = true;
    going = false;
  };
  input.addEventListener("change", () => { const files = [...input.files]; input.value = ""; take(files); });

  const gone = new AbortController();
  const { signal } = gone;
  inStudio(el, (root) => {
    root.dataset.lmSuppressShortcuts = "true"; // keys in a control are not shortcuts of JupyterLab
    fix(root, signal);
    const over = (event) => {
      if (![...event.dataTransfer.types].some((type) => type === "Files" || type === "application/x-i2v-run")) return;
      event.preventDefault();
      event.stopPropagation();
      root.classList.toggle("i2vs-over", event.type !== "drop" && event.type !== "dragleave");
      if (event.type !== "drop") return;
      const run = event.dataTransfer.getData("application/x-i2v-run");
      if (run) model.send({ type: "run", run });
      else take([...event.dataTransfer.files]);
    };
    for (const type of ["dragenter", "dragover", "dragleave", "drop"]) root.addEventListener(type, over, { signal });
    root.addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (!file) return;
      event.preventDefault();
      take([file]);
    }, { signal });
  });
  // Voilà ends the kernel with the page, and the running clip with it: not while there is one.
  window.addEventListener("beforeunload", (event) => model.get("busy") && event.stopImmediatePropagation(), { capture: true, signal });
  document.addEventListener("visibilitychange", () => document.hidden || model.send({ type: "look" }), { signal });
  return () => { gone.abort(); urlOf(null); };
}

function card(item, model, urls) {
  const words = model.get("words");
  const node = make("div", `i2vs-card ${item.status}`);
  node.dataset.run = item.id;
  const open = make("button", "i2vs-open");
  open.type = "button";
  open.title = item.title;
  const url = urls(item);
  if (url) {
    const image = make("img");
    image.src = url;
    image.alt = item.caption;
    open.append(image);
  } else {
    open.append(make("span", "i2vs-status", words[item.status] ?? item.status));
    if (item.note) open.append(make("span", "i2vs-note", item.note));
  }
  open.append(make("span", "i2vs-caption", item.caption));
  if (item.detail) open.append(make("span", "i2vs-detail", item.detail));
  open.draggable = true;
  open.addEventListener("dragstart", (event) => event.dataTransfer.setData("application/x-i2v-run", item.id));
  const toggle = () => {
    const chosen = model.get("chosen");
    model.set("chosen", chosen.includes(item.id) ? chosen.filter((id) => id !== item.id) : [...chosen, item.id]);
    model.save_changes();
  };
  open.addEventListener("click", (event) => {
    if ((event.shiftKey || event.ctrlKey || event.metaKey) && url) toggle();
    else if (item.id) model.send({ type: "open", id: item.id });
  });
  node.append(open);
  if (url && words.choose) {
    const pick = make("button", "i2vs-pick");
    pick.type = "button";
    pick.title = words.choose;
    pick.setAttribute("aria-label", `${words.choose}: ${item.caption}`);
    pick.addEventListener("click", toggle);
    node.append(pick);
  }
  if (item.id && words.delete && item.status !== "running") {
    const remove = make("button", "i2vs-remove", "✕");
    remove.type = "button";
    remove.title = words.delete;
    remove.setAttribute("aria-label", `${words.delete}: ${item.caption}`);
    remove.addEventListener("click", () => model.send({ type: "delete", id: item.id }));
    node.addEventListener("keydown", (event) => event.key === "Delete" && remove.click());
    node.append(remove);
  }
  return node;
}

function strip({ model, el }) {
  const list = make("div", "i2vs-list");
  el.classList.add("i2vs-strip");
  el.append(list);
  let urls = new Map();
  const fill = () => {
    const kept = new Map(); // posters are kept: a strip with one more clip must not flicker
    const urlOf = (item) => {
      if (!item.poster?.byteLength) return "";
      const url = urls.get(item.id) ?? URL.createObjectURL(bytes(item.poster).slice(0, item.poster.byteLength, "image/jpeg"));
      kept.set(item.id, url);
      return url;
    };
    const focused = list.contains(document.activeElement) ? document.activeElement.closest("[data-run]")?.dataset.run : null;
    const columns = model.get("columns");
    list.classList.toggle("grid", columns > 0);
    list.style.setProperty("--columns", columns || 1);
    list.style.setProperty("--shape", model.get("shape"));
    const items = model.get("items");
    list.replaceChildren(...(items.length ? items.map((item) => card(item, model, urlOf)) : [make("p", "i2vs-hint", model.get("words").empty)]));
    for (const [id, url] of urls) if (!kept.has(id)) URL.revokeObjectURL(url);
    urls = kept;
    mark();
    if (focused) list.querySelector(`[data-run="${CSS.escape(focused)}"] button`)?.focus();
  };
  const mark = () => {
    const chosen = model.get("chosen");
    for (const node of list.children) {
      const is = chosen.includes(node.dataset.run);
      node.classList.toggle("chosen", is);
      node.querySelector(".i2vs-pick")?.setAttribute("aria-pressed", String(is));
    }
  };
  model.on("change:items", fill);
  model.on("change:columns", fill);
  model.on("change:shape", fill);
  model.on("change:chosen", mark);
  fill();
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

/** Shows the first picture of a moving one. */
async function firstFrame(view, mime, image) {
  const picture = await createImageBitmap(bytes(view).slice(0, view.byteLength, mime));
  const canvas = Object.assign(make("canvas"), { width: picture.width, height: picture.height });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  image.src = canvas.toDataURL();
}

function screen({ model, el }) {
  const urlOf = source();
  el.classList.add("i2vs-screen");
  let shown = null;
  const fill = () => {
    const mime = model.get("mime");
    const url = urlOf(model.get("source"), mime);
    const tag = !url ? "P" : mime.startsWith("image/") ? "IMG" : "VIDEO";
    if (shown?.tagName !== tag) {
      const next = make(tag, tag === "P" ? "i2vs-hint" : "");
      if (tag === "VIDEO") Object.assign(next, { autoplay: !still(), loop: true, muted: true, controls: true, playsInline: true });
      shown ? shown.replaceWith(next) : el.append(next);
      shown = next;
    }
    if (tag === "P") {
      shown.textContent = model.get("empty");
    } else {
      if (tag === "IMG" && still()) firstFrame(model.get("source"), mime, shown);
      else shown.src = url;
      shown[tag === "IMG" ? "alt" : "ariaLabel"] = model.get("alt");
    }
    el.style.setProperty("--shape", `${model.get("width")} / ${model.get("height")}`);
    el.style.setProperty("--across", model.get("width") / model.get("height"));
    el.classList.toggle("rough", model.get("rough"));
  };
  model.on("change:source", fill);
  model.on("change:empty", fill);
  fill();
  return () => urlOf(null);
}

/** A text behind a button, with a button that copies it. */
function code({ model, el }) {
  el.classList.add("i2vs-code");
  const words = model.get("words");
  const open = make("button", "jupyter-button", words.code);
  const copy = make("button", "jupyter-button", words.code_copy);
  const text = make("pre");
  [open.title, open.type, copy.type, text.tabIndex] = [words.code_help, "button", "button", 0];
  el.append(open, copy, text);
  const show = (shown) => {
    copy.hidden = text.hidden = !shown;
    open.setAttribute("aria-expanded", shown);
  };
  open.onclick = () => show(text.hidden);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch { // a page that is not secure has no clipboard: the old way
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    copy.textContent = words.code_copied;
    setTimeout(() => (copy.textContent = words.code_copy), 1500);
  };
  const fill = () => {
    text.textContent = model.get("text");
    el.hidden = !text.textContent;
  };
  model.on("change:text", fill);
  show(false);
  fill();
}

export default { render: (context) => ({ head, drop, strip, screen, code, page: pageLink })[context.model.get("kind")](context) };
