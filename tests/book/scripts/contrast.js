/* Every text of a page whose contrast with its ground is too small: at least 4.5:1, large text 3:1 (WCAG 2). */
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  function rgba(text) { // any CSS colour as four numbers, alpha from 0 to 1
    if (!known.has(text)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const found = Array.from(canvas.getImageData(0, 0, 1, 1).data);
      known.set(text, [...found.slice(0, 3), found[3] / 255]);
    }
    return known.get(text);
  }
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const places = new Map(); // what lies under an element, and how much of it shows through
  function place(element) {
    if (!element) { return { ground: [255, 255, 255], opacity: 1 }; }
    if (!places.has(element)) {
      const style = getComputedStyle(element), around = place(element.parentElement);
      places.set(element, { ground: over(rgba(style.backgroundColor), around.ground), opacity: around.opacity * Number(style.opacity) });
    }
    return places.get(element);
  }
  function luminance(colour) {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  const found = new Map();
  let texts = 0;
  function check(element, style, text) {
    const { ground, opacity } = place(element), colour = rgba(style.color);
    if (opacity === 0) { return; } // shown when the mouse is over it
    texts += 1;
    const size = parseFloat(style.fontSize), icon = /^[\ue000-\uf8ff"]+$/.test(text);
    const large = icon || size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const [a, b] = [luminance(over([...colour.slice(0, 3), colour[3] * opacity], ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (large ? 3 : 4.5)) {
      const names = [element.tagName.toLowerCase(), ...element.classList].join(".");
      const key = names + " " + style.color + " " + ratio.toFixed(2);
      if (!found.has(key)) { found.set(key, key + " " + JSON.stringify(text.trim().slice(0, 40))); }
    }
  }
  const seen = new WeakMap(); // of a table or a block of code: what kinds of text it has; each is looked at once
  function repeated(element) {
    const block = element.closest("pre, tbody");
    if (!block || element.children.length) { return false; }
    const row = element.closest("tr");
    const kind = [element.tagName, element.className, element.getAttribute("style"), element.dataset.state, row && row.className, row && row.dataset.mark, row && row.rowIndex % 2, element.parentElement.className].join("|");
    if (!seen.has(block)) { seen.set(block, new Set()); }
    const known = seen.get(block).has(kind);
    seen.get(block).add(kind);
    return known;
  }
  const skipped = "script, style, noscript, svg, template, dialog:not([open]), .visually-hidden, .sr-only";
  function walk(element) {
    if (element.matches(skipped) || repeated(element)) { return; }
    const style = getComputedStyle(element);
    if (style.display === "none") { return; }
    if (style.visibility === "visible") {
      const text = Array.from(element.childNodes).filter((node) => node.nodeType === 3).map((node) => node.data).join("");
      if (text.trim()) { check(element, style, text); }
      if (element.placeholder) { check(element, getComputedStyle(element, "::placeholder"), element.placeholder); }
      for (const pseudo of element.closest("pre") ? [] : ["::before", "::after"]) {
        const made = getComputedStyle(element, pseudo);
        if (/^".*\S.*"$/.test(made.content) && made.display !== "none") { check(element, made, made.content); }
      }
    }
    if (element.tagName === "MJX-CONTAINER") { check(element, style, "a formula"); return; } // glyphs are generated
    Array.from(element.children).forEach(walk);
  }
  walk(document.body);
  return { texts, poor: Array.from(found.values()) };
}
