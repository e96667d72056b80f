/* The book's interactive parts, without a kernel and without a library.
   1. figure.sq-frames: controls that switch pre-rendered frames, pictures or text (made by sqlib.widgets.frames).
   2. div.sq-table[data-filter]: a filter per column and sorting by a click on a header (sqlib.widgets.show_table).
   3. tables that are wider than their box are marked, so that the style sheet can say so. */
(function () {
  "use strict";

  var watched = new ResizeObserver(function (entries) {
    entries.forEach(function (entry) {
      var box = entry.target.closest(".sq-scroll, .pst-scrollable-table-container");
      box.classList.toggle("sq-wide", box.scrollWidth > box.clientWidth + 1);
    });
  });

  function watch(part) {
    part.querySelectorAll(":is(.sq-scroll, .pst-scrollable-table-container) > table").forEach(function (table) {
      watched.observe(table);
      watched.observe(table.parentNode);
    });
  }

  function setUpFrames(figure) {
    var data = JSON.parse(figure.querySelector("script.sq-data").textContent);
    var image = figure.querySelector("img");
    var fields = Array.prototype.slice.call(figure.querySelectorAll("[data-axis]"));
    var text = figure.querySelector(".sq-text");

    function update() {
      var at = fields.map(function (field) { return Number(field.value); });
      var frame = data.frames[at.reduce(function (sum, i, axis) {
        return sum * data.texts[axis].length + i; // the last control runs fastest
      }, 0)];
      if (text) {
        text.innerHTML = frame.html;
        watch(text);
      } else {
        image.src = frame.src;
        image.alt = frame.alt;
        image.width = frame.width;
        image.height = frame.height;
      }
      fields.forEach(function (field, axis) {
        var chosen = data.texts[axis][at[axis]];
        var output = field.parentNode.querySelector("output");
        if (output) { output.textContent = chosen; }
        if (field.type === "range") { field.setAttribute("aria-valuetext", chosen); }
      });
    }

    fields.forEach(function (field) {
      field.addEventListener("input", update);
      field.addEventListener("change", update);
    });
    figure.querySelector(".sq-controls").hidden = false;
    update(); // a browser may have restored a slider's position when the page was reloaded
  }

  function cellText(row, column) {
    var cell = row.cells[column];
    return cell ? cell.textContent.trim() : "";
  }

  function setUpTable(box) {
    var table = box.querySelector("table");
    var head = table.tHead.rows[table.tHead.rows.length - 1];
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    var flags = box.getAttribute("data-filter");
    var offset = head.cells.length - flags.length; // columns of the index come first and are not filtered
    var tests = [];

    var count = document.createElement("p");
    count.className = "sq-count";
    count.setAttribute("aria-live", "polite");
    box.insertBefore(count, box.firstChild);

    function update() {
      var shown = 0;
      rows.forEach(function (row) {
        var keep = tests.every(function (test) { return test(row); });
        row.hidden = !keep;
        if (keep) { shown += 1; }
      });
      count.textContent = shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " rows";
    }

    var line = document.createElement("tr");
    line.className = "sq-filters";
    Array.prototype.forEach.call(head.cells, function (cell, column) {
      var place = document.createElement("td");
      line.appendChild(place);
      if (column < offset) { return; }
      var name = cell.textContent;
      var field;
      if (flags[column - offset] === "1") {
        field = document.createElement("select");
        var seen = {};
        rows.forEach(function (row) { seen[cellText(row, column)] = true; });
        ["all"].concat(Object.keys(seen).filter(Boolean).sort()).forEach(function (text, i) {
          var option = document.createElement("option");
          option.value = i === 0 ? "" : text;
          option.textContent = text;
          field.appendChild(option);
        });
        tests.push(function (row) { return !field.value || cellText(row, column) === field.value; });
      } else {
        field = document.createElement("input");
        field.type = "search";
        field.placeholder = "contains";
        tests.push(function (row) {
          return cellText(row, column).toLowerCase().indexOf(field.value.trim().toLowerCase()) >= 0;
        });
      }
      field.setAttribute("aria-label", "Filter by " + name);
      field.addEventListener("input", update);
      field.addEventListener("change", update);
      place.appendChild(field);

      var button = document.createElement("button");
      button.type = "button";
      button.className = "sq-sort";
      button.textContent = name;
      button.addEventListener("click", function () {
        var up = cell.getAttribute("aria-sort") !== "ascending";
        Array.prototype.forEach.call(head.cells, function (other) { other.removeAttribute("aria-sort"); });
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        var keys = new Map();
        rows.forEach(function (row) {
          var text = cellText(row, column);
          var number = Number(text.replace(/,/g, ""));
          keys.set(row, text !== "" && !isNaN(number) ? number : text);
        });
        rows.sort(function (first, second) {
          var a = keys.get(first), b = keys.get(second);
          var numbers = (typeof a === "number") - (typeof b === "number");
          if (numbers !== 0) { return -numbers; } // missing values and words stay below the numbers
          var order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
          return up ? order : -order;
        });
        body.remove(); // out of the page while its rows move: one change of the layout, not one for each row
        rows.forEach(function (row) { body.appendChild(row); });
        table.appendChild(body);
      });
      cell.textContent = "";
      cell.appendChild(button);
    });
    table.tHead.appendChild(line);
    update();
  }

  function start() {
    document.querySelectorAll("figure.sq-frames").forEach(setUpFrames);
    document.querySelectorAll("div.sq-table[data-filter]").forEach(setUpTable);
    watch(document);
    document.documentElement.setAttribute("data-sqlib", "ready");
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", start);
  } else {
    start();
  }
})();
