// Stars and a note for a clip, where the page can save them: data.rate(number, stars or null) and data.note(number, text).

const STARS = [1, 2, 3, 4, 5];

function starRow(cell, rate) {
  const row = make("div", "i2v-stars");
  row.setAttribute("role", "group");
  named(row, "stars");
  const buttons = STARS.map((stars) => {
    const node = make("button", "i2v-word i2v-star", "★");
    node.type = "button";
    titled(node, "star_help", { stars });
    named(node, "star", { stars });
    node.addEventListener("click", () => {
      cell.stars = cell.stars === stars ? null : stars;
      rate(cell.number, cell.stars);
      show();
    });
    return node;
  });
  const show = () => buttons.forEach((node, index) => node.setAttribute("aria-pressed", String(index < (cell.stars || 0))));
  row.append(...buttons);
  show();
  return row;
}

// The note can be edited in the large view; the small view shows it.
function noteField(cell, note) {
  const read = make("p", "i2v-note-text");
  const field = make("textarea", "i2v-note");
  Object.assign(field, { rows: 2, value: cell.note || "", maxLength: 10000 });
  named(field, "note");
  say(field, () => (field.placeholder = t("note_help")));
  const show = () => {
    read.textContent = cell.note || "";
    read.title = cell.note || "";
    read.hidden = !cell.note;
  };
  field.addEventListener("change", () => {
    cell.note = field.value;
    note(cell.number, field.value);
    show();
  });
  field.addEventListener("click", (event) => event.stopPropagation());
  show();
  return [read, field];
}
