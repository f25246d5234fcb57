// Tables sort at a click on a column's head; rows without a value stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : numeric;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.key;
      const order = (a, b) => numeric ? a - b : a.localeCompare(b);
      body.append(...[...body.rows].sort((x, y) => {
        const [a, b] = [key(x), key(y)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return down ? order(b, a) : order(a, b);
      }));
    });
  });
}

// The field hides whatever belongs to other classes: rows, bars, curves and pictures.
const filter = document.querySelector(".filter");
const [field, told] = [filter.querySelector("input"), filter.querySelector("output")];
filter.hidden = false;
field.addEventListener("input", () => {
  const wanted = field.value.trim().toLowerCase();
  for (const part of document.querySelectorAll("[data-class]")) {
    part.hidden = !part.dataset.class.toLowerCase().includes(wanted);
  }
  const rows = [...document.querySelectorAll("#per-class tbody tr")];
  const left = rows.filter(row => !row.hidden).length;
  told.value = wanted ? `${left} of ${rows.length}` : "";
  if (wanted) for (const folded of document.querySelectorAll("details.many")) folded.open = true;
  const albums = [...document.querySelectorAll("details.album")].filter(album => !album.hidden);
  if (albums.length === 1) albums[0].open = true;
});
