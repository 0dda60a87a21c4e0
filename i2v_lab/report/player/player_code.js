// The script that makes a clip again with diffusers alone, in a panel over the clips.

class Code {
  constructor(player, cell, opener) {
    this.opener = opener;
    this.text = make("pre", "i2v-code-text", `${cell.code.map((line) => player.data.lines[line]).join("\n")}\n`);
    this.text.tabIndex = 0;
    this.said = told(make("span", "i2v-pair-said"), "code_needs");
    this.said.setAttribute("role", "status");
    this.copier = wordButton("copy", "copy", "copy_help", () => this.copy());
    const close = button("close", "close_code", () => player.closeCode());
    const bar = make("div", "i2v-bar i2v-pair-bar", told(make("b"), "script"), this.said, make("span", "i2v-pair-tools", this.copier, close));
    this.root = make("div", "i2v-code-panel", bar, this.text);
    this.root.setAttribute("role", "dialog");
    named(this.root, "code_title");
  }

  // A page in a sandboxed frame has no clipboard: there the text is selected, and the older command is tried.
  async copy() {
    let copied = true;
    try {
      await navigator.clipboard.writeText(this.text.textContent);
    } catch {
      getSelection().selectAllChildren(this.text);
      copied = document.execCommand("copy");
    }
    this.said.textContent = t(copied ? "copied" : "selected");
  }
}

function codeButton(cell, player) {
  const node = wordButton("code", "code", "code_title", (event) => {
    event.stopPropagation();
    player.openCode(cell, node);
  });
  return node;
}
