/* What does not fit a page as narrow as a telephone. */
() => {
  const wrong = [], inside = (r) => r.left >= -1 && r.right <= innerWidth + 1;
  if (document.documentElement.scrollWidth > innerWidth) { wrong.push("the page is " + document.documentElement.scrollWidth + " wide"); }
  document.querySelectorAll("article img").forEach((image) => {
    const rect = image.getBoundingClientRect();
    if (rect.width && !inside(rect)) { wrong.push("cut: " + image.alt); }
  });
  document.querySelectorAll("article div.math > .eqno").forEach((number) => {
    const formula = number.parentNode.querySelector("mjx-container");
    if (!formula || !formula.getClientRects().length) { return; }
    const n = number.getBoundingClientRect(), f = formula.getBoundingClientRect();
    if (n.left < f.right - 1 || !inside(n)) { wrong.push("number over equation " + number.textContent); }
  });
  document.querySelectorAll("article .sq-scroll").forEach((box) => {
    const table = box.querySelector(":scope > table");
    if (!table || box.scrollWidth <= box.clientWidth + 1) { return; }
    const first = table.tBodies[0].rows[0].cells[0];
    const hint = getComputedStyle(box.closest(".sq-table"), "::before").content;
    if (getComputedStyle(first).position !== "sticky" || !hint.includes("scroll")) { wrong.push("no hint: " + table.caption.textContent); }
    if (first.getBoundingClientRect().width > 200) { wrong.push("wide first column: " + table.caption.textContent); }
  });
  return wrong;
}
