/* What is cut off or empty on paper, where nothing scrolls or unfolds. */
() => {
  const page = document.querySelector("article") || document.body;
  const edge = page.getBoundingClientRect().right + 1;
  const shown = [...page.querySelectorAll("table, pre, img, details")].filter((node) => node.getClientRects().length);
  return shown
    .filter((node) => (node.tagName === "DETAILS" ? !node.open : node.getBoundingClientRect().right > edge || (node.tagName === "PRE" && node.scrollWidth > node.clientWidth + 1)))
    .map((node) => node.tagName + ": " + (node.alt || node.textContent).trim().slice(0, 60));
}
