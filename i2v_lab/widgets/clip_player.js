// The player as a widget: its data come from the kernel, and so does each clip when it comes into view.

// Messages between the page and the kernel.
function talk(model, tell) {
  const asked = new Map();
  const mine = Math.random().toString(36).slice(2); // every view of the widget gets all answers
  let count = 0;
  const hear = (message, buffers) => {
    if (message.type === "problem") tell(message.text);
    const waiting = message.type === "clip" && asked.get(message.request);
    if (!waiting) return;
    asked.delete(message.request);
    if (buffers.length) waiting.resolve(new Blob([buffers[0]], { type: message.mime }));
    else waiting.reject(new Error(message.text));
  };
  model.on("msg:custom", hear);
  const keep = (number, name, value) => {
    model.get("data").cells[number][name] = value; // for the next view; the kernel has it already
    model.send({ type: name, cell: number, value });
  };
  return {
    load: (key) => new Promise((resolve, reject) => {
      const [cell, whole] = key.split(" ");
      count += 1;
      const request = `${mine} ${count}`;
      asked.set(request, { resolve, reject });
      model.send({ type: "clip", request, cell: Number(cell), whole: Boolean(whole) });
    }),
    rate: (number, stars) => keep(number, "stars", stars),
    note: (number, text) => keep(number, "note", text),
    end: () => model.off("msg:custom", hear),
  };
}

export default {
  render({ model, el }) {
    const box = make("div", "i2v-live");
    el.style.containerType = "inline-size"; // of which the height is a part
    el.append(box);
    let player = null;
    const { end, load, rate, note } = talk(model, (text) => player?.tell(text));
    const show = () => {
      player?.destroy();
      player = null;
      const data = structuredClone(model.get("data"));
      if (!data.cells) return;
      box.style.height = data.height; // CSS; without a height of its own the box and the clips in it would follow each other
      player = mount(box, { ...data, load, ...(data.opinions ? { rate, note } : {}) });
    };
    model.on("change:data", show);
    show();
    return () => {
      model.off("change:data", show);
      end();
      player?.destroy();
    };
  },
};
