/* Every filter and every sort button of a table once: what is wrong. */
(box) => {
  const wrong = [], rows = () => Array.from(box.querySelectorAll("tbody tr")).filter((row) => !row.hidden);
  const all = rows().length;
  const offset = box.querySelector("thead tr").cells.length - box.dataset.filter.length;
  const say = (field, value) => { field.value = value; field.dispatchEvent(new Event("input")); };
  box.querySelectorAll(".sq-filters input, .sq-filters select").forEach((field, i) => {
    const cell = (row) => row.cells[offset + i].textContent.trim();
    const value = field.options ? field.options[1].value : cell(rows()[0]);
    say(field, value);
    const left = rows();
    const fits = (text) => field.options ? text === value : text.toLowerCase().includes(value.toLowerCase());
    if (!left.length || !left.every((row) => fits(cell(row)))) { wrong.push([i, value]); }
    if (!box.querySelector(".sq-count").textContent.startsWith(left.length.toLocaleString("en") + " of ")) { wrong.push([i, "count"]); }
    say(field, "");
    if (rows().length !== all) { wrong.push([i, "not back"]); }
  });
  box.querySelectorAll(".sq-sort").forEach((button) => {
    button.click();
    if (button.parentNode.getAttribute("aria-sort") !== "ascending") { wrong.push(button.textContent); }
  });
  return wrong;
}
