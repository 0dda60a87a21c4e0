// The script that makes a clip again with diffusers alone, in a panel over the clips.

const CODE_TITLE = "A Python script that makes this clip again, without i2v_lab";

class Code {
  constructor(player, cell, opener) {
    this.opener = opener;
    this.text = make("pre", "i2v-code-text", `${cell.code.map((line) => player.data.lines[line]).join("\n")}\n`);
    this.text.tabIndex = 0;
    this.said = make("span", "i2v-pair-said", "needs PyTorch and diffusers, and neither this page nor i2v_lab");
    this.said.setAttribute("role", "status");
    this.copier = wordButton("copy", "Copy", "Copy the script", () => this.copy());
    const close = button("close", "Back to the clips (Escape)", () => player.closeCode());
    const bar = make("div", "i2v-bar i2v-pair-bar", make("b", "", "Script"), this.said, make("span", "i2v-pair-tools", this.copier, close));
    this.root = make("div", "i2v-code-panel", bar, this.text);
    this.root.setAttribute("role", "dialog");
    this.root.setAttribute("aria-label", CODE_TITLE);
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
    this.said.textContent = copied ? "copied" : "selected: press Ctrl-C, or Command-C, to copy it";
  }
}

function codeButton(cell, player) {
  const node = wordButton("code", "Code", CODE_TITLE, (event) => {
    event.stopPropagation();
    player.openCode(cell, node);
  });
  return node;
}
