/* What the toy with the patches shows. */
(box) => {
  const each = (selector, read) => Array.from(box.querySelectorAll(selector), read);
  const rows = (name) => each(`[data-matrix="${name}"] tbody tr`, (row) => Array.from(row.querySelectorAll("td")));
  const numbers = (name) => rows(name).map((cells) => cells.map((cell) => Number(cell.textContent)));
  return {
    scores: each(".sq-point", (point) => [Number(point.dataset.x), Number(point.dataset.y)]),
    tau: Number(box.querySelector("input[type=range]").value),
    says: box.querySelector(".sq-says").textContent,
    squares: each(".sq-point rect", (rect) => rect.getAttribute("rx") === "0"),
    arrows: box.querySelectorAll(".sq-arrow").length,
    matrices: { class_affinity: numbers("A"), patch_affinity: numbers("A'"), affinity: numbers("M") },
    framed: rows("M").map((cells) => cells.findIndex((cell) => cell.className === "sq-most")),
  };
}
