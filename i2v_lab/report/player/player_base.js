// Elements, icons and texts that the files of the player share. assets.py joins the files into one module, after a line
// const TEXTS = { language: { key: text } }, from strings.json.

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const ICONS = {
  play: "M3 1.5v13l11-6.5z",
  pause: "M3 2h4v12H3zM9 2h4v12H9z",
  back: "M11 2v12L4.5 8zM2 2h2v12H2z",
  next: "M5 2v12l6.5-6zM12 2h2v12h-2z",
  full: "M1 1h5v2H3v3H1zM10 1h5v5h-2V3h-3zM1 10h2v3h3v2H1zM13 10h2v5h-5v-2h3z",
  up: "M8 3l5 6H9.2v5H6.8V9H3z",
  down: "M8 13L3 7h3.8V2h2.4v5H13z",
  choose: "M2 2h12v12H2zM4 4v8h8V4z",
  theme: "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM8 3v10A5 5 0 0 1 8 3z",
  against: "M1 2h14v12H1zM3 4v8h4V4z",
  close: "M3.4 2L8 6.6 12.6 2 14 3.4 9.4 8l4.6 4.6-1.4 1.4L8 9.4 3.4 14 2 12.6 6.6 8 2 3.4z",
};
const COLOURS = 6; // of axes: --axis-0 and on, in player.css

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
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  return svg;
}

let language = "en";

// A text of strings.json in the language of the page, with its {names} filled in.
function t(key, values = {}) {
  return TEXTS[language][key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// Run `write` now, and again whenever the language changes: see sayAgain.
function say(node, write) {
  node.i2vSay = [...(node.i2vSay || []), write];
  write();
  return node;
}

const spoken = (node, text) => say(node, () => (node.textContent = text()));
const told = (node, key, values) => spoken(node, () => t(key, values));
const named = (node, key, values) => say(node, () => node.setAttribute("aria-label", t(key, values)));
const titled = (node, key, values) => say(node, () => (node.title = t(key, values)));

function sayAgain(...roots) {
  for (const root of roots) for (const node of [root, ...root.querySelectorAll("*")]) for (const write of node.i2vSay || []) write();
}

// A note or a reason: [English, Chinese], or one text for both.
const inWords = (text) => (Array.isArray(text) ? text[Object.keys(TEXTS).indexOf(language)] : text);

function button(name, key, act) {
  const node = make("button", `i2v-${name}`, icon(name));
  node.type = "button";
  titled(node, key);
  named(node, key);
  node.addEventListener("click", act);
  return node;
}

function wordButton(name, key, help, act) {
  const node = make("button", `i2v-word i2v-${name}`);
  node.type = "button";
  told(node, key);
  titled(node, help);
  node.addEventListener("click", act);
  return node;
}

// A list to choose from: options are [value, text, or a function that returns it].
function chooser(name, key, options, act) {
  const choices = options.map(([value, text]) => {
    const option = new Option("", value);
    return spoken(option, typeof text === "function" ? text : () => text);
  });
  const node = make("select", `i2v-${name}`, ...choices);
  named(node, key);
  node.addEventListener("change", () => act(node.value));
  return node;
}

// A control behind its name.
function labelled(key, control) {
  return make("label", "", told(make("span"), key), control);
}

// A name that may be broken after its underscores.
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));

// The names of a label in the colours of their axes.
function pairs(label, axes) {
  return label.map(([name, value]) => {
    const pair = make("span", "i2v-pair", make("span", "i2v-name", ...breakable(`${name} `)), make("span", "i2v-value", value));
    const index = axes ? axes.indexOf(name) : -1;
    pair.title = value; // where there is no room for all of it
    if (index >= 0) pair.style.setProperty("--mark", `var(--axis-${index % COLOURS})`);
    if (index >= 0) pair.classList.add("differs");
    return pair;
  });
}

const words = (label) => label.map(([name, value]) => `${name} ${value}`).join(", ");

const figureText = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4))));

function blobOf(cell) {
  const text = atob(cell.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type: cell.mime });
}

const playable = (cell) => Boolean(cell.base64 || cell.src || cell.lazy);
