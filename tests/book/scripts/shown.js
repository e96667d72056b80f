/* Whether a figure with controls shows the frame that they are set to. */
(figure) => {
  const data = JSON.parse(figure.querySelector("script.sq-data").textContent);
  const at = Array.from(figure.querySelectorAll("[data-axis]"), (field) => Number(field.value));
  const frame = data.frames[at.reduce((sum, i, axis) => sum * data.texts[axis].length + i, 0)];
  const image = figure.querySelector("img"), text = figure.querySelector(".sq-text");
  const labels = Array.from(figure.querySelectorAll("output"), (output) => output.textContent);
  const wanted = document.createElement("div");
  wanted.innerHTML = frame.html || "";
  const right = text ? text.textContent === wanted.textContent : image.src === frame.src && image.alt === frame.alt;
  const named = labels.every((label) => data.texts.some((texts, axis) => texts[at[axis]] === label));
  return [at, right && named && !figure.querySelector(".sq-controls").hidden];
}
