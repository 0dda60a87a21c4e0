// Language and theme: those of the document's root (data-lang, data-theme), else what was chosen before, else the browser's.

const THEMES = ["light", "dark"];

// A page in a sandboxed frame has no storage.
function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch { /* it holds for this page alone */ }
}

function languageOf(element) {
  const asked = element.closest("[data-lang]")?.dataset.lang || kept("i2v-language") || navigator.language || "en";
  return asked.toLowerCase().startsWith("zh") ? "zh" : "en";
}

// "" is the system's, or that of the notebook around: JupyterLab and VS Code have their own.
function themeOf(element) {
  const given = element.closest("[data-theme]")?.dataset.theme;
  const around = document.body.dataset.jpThemeLight || /\bvscode-/.test(document.body.className);
  const asked = given || (around ? "" : kept("i2v-theme"));
  return THEMES.includes(asked) ? asked : "";
}

// Keeps an element in the language and theme of the page; `changed` is called after each change of the language.
// A page around this one changes both by a message: { i2v: { language, theme } }, and is told when this one is ready.
function followLooks(element, changed) {
  const root = document.documentElement;
  const apply = () => {
    const theme = themeOf(element);
    element.style.colorScheme = theme;
    const before = language;
    language = languageOf(element);
    element.lang = language;
    if (language !== before) changed();
  };
  const hear = (event) => {
    const asked = event.data?.i2v;
    if (window.parent === window || event.source !== window.parent || typeof asked !== "object") return;
    if (asked.language in TEXTS) root.dataset.lang = asked.language;
    if (THEMES.includes(asked.theme)) root.dataset.theme = asked.theme;
    else if (asked.theme !== undefined) delete root.dataset.theme;
  };
  const observer = new MutationObserver(apply);
  observer.observe(root, { attributes: true, attributeFilter: ["data-lang", "data-theme"] });
  window.addEventListener("message", hear);
  language = languageOf(element);
  apply();
  root.dataset.lang ||= language; // texts in both languages around the player show the same one
  if (window.parent !== window) window.parent.postMessage({ i2v: { ready: true } }, "*");
  return () => {
    observer.disconnect();
    window.removeEventListener("message", hear);
  };
}

function chooseLanguage() {
  const other = language === "zh" ? "en" : "zh";
  keep("i2v-language", other);
  document.documentElement.dataset.lang = other;
}

function chooseTheme(element) {
  const scheme = getComputedStyle(element).colorScheme;
  const dark = scheme === "dark" || (scheme !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
  const other = dark ? "light" : "dark";
  keep("i2v-theme", other);
  document.documentElement.dataset.theme = other;
}
