// The switches of a report: language and light or dark. The players in their frames hear of both. On paper all parts are open.
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = (name) => {
    try {
      return localStorage.getItem(name) || "";
    } catch {
      return ""; // a page from disk may have no store
    }
  };
  const keep = (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      // the choice holds for this page alone
    }
  };
  let language = stored("i2v-language") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  let theme = stored("i2v-theme");
  const shown = () => theme || (dark.matches ? "dark" : "light");

  const tell = (frame) => frame.contentWindow?.postMessage({ i2v: { language, theme: shown() } }, "*");
  const show = () => {
    root.lang = language;
    for (const node of [root, ...document.querySelectorAll("[data-lang]")]) node.dataset.lang = language;
    if (theme) root.dataset.theme = theme;
    const title = document.querySelector(`h1 .i2v-${language}`) || document.querySelector("h1");
    if (title) document.title = title.textContent;
    for (const frame of document.querySelectorAll("iframe")) tell(frame);
    for (const node of document.querySelectorAll(".i2v-theme")) node.hidden = node.dataset.value === shown();
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const frame of document.querySelectorAll("iframe")) frame.addEventListener("load", () => tell(frame));
    document.querySelector(".i2v-switches").addEventListener("click", ({ target }) => {
      const { name, value } = target.closest("button")?.dataset ?? {};
      if (name === "language") keep("i2v-language", (language = value));
      if (name === "theme") keep("i2v-theme", (theme = value));
      show();
    });
    show();
  });
  addEventListener("message", ({ data }) => {
    if (data?.i2v?.ready) for (const frame of document.querySelectorAll("iframe")) tell(frame);
  });
  dark.addEventListener("change", show);
  root.dataset.lang = language; // before anything is painted
  if (theme) root.dataset.theme = theme;

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const node of folded) node.open = true;
  });
  addEventListener("afterprint", () => {
    for (const node of folded) node.open = false;
  });
}
