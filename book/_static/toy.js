/* The toy of the chapter on clustering (div.sq-toy, made by notebooks/figures/clustering_patches.py): patches as
   points that can be dragged, A, A', M and the references as sqlib.reference.clustering.assign(v, tau) gives them.
   Without this script a still picture stands in its place. No kernel, no library. */
(function () {
  "use strict";

  var UNIT = 52, MARGIN = 18; // pixels of one unit of the scores, and around the plane
  var SVG = "http://www.w3.org/2000/svg";
  var KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  var ALMOST = 1e-12; // what rounding may make of equal numbers, as in assign
  var count = 0;
  // --- the clustering: rows of v are patches ---
  function transposed(m) { return m[0].map(function (_, j) { return m.map(function (row) { return row[j]; }); }); }
  function dot(a, b) { return a.reduce(function (sum, x, k) { return sum + x * b[k]; }, 0); }
  function softmax(m) { // along rows
    return m.map(function (row) {
      var largest = Math.max.apply(null, row);
      var e = row.map(function (x) { return Math.exp(x - largest); });
      var sum = e.reduce(function (a, b) { return a + b; }, 0);
      return e.map(function (x) { return x / sum; });
    });
  }

  function cosine(a, b) { // 0 where one of them is zero
    var unit = function (x) { var norm = Math.sqrt(dot(x, x)); return x.map(function (y) { return norm > 0 ? y / norm : 0; }); };
    var found = Math.max(-1, Math.min(1, dot(unit(a), unit(b))));
    return found > 1 - ALMOST ? 1 : found;
  }

  function cluster(v, tau) {
    var A = softmax(v), B = softmax(transposed(v)), columns = transposed(B);
    var M = A.map(function (row) { return columns.map(function (column) { return dot(row, column); }); });
    var most = M.map(function (row) {
      var largest = Math.max.apply(null, row);
      return row.findIndex(function (m) { return m >= largest * (1 - ALMOST); }); // the first of equals
    });
    var pointed = most.map(function (j, i) { return cosine(v[i], v[j]) >= tau ? j : i; });
    // "promote": whoever another one points at is a reference, wherever it points itself.
    var chosen = pointed.filter(function (j, i) { return j !== i; });
    var reference = pointed.map(function (j, i) { return chosen.indexOf(i) >= 0 ? i : j; });
    return { A: A, B: B, M: M, most: most, reference: reference };
  }

  function sentence(names, reference) {
    var alone = names.filter(function (_, i) { return reference[i] === i; });
    var links = names.map(function (name, i) { return name + " looks at " + names[reference[i]]; }).filter(function (_, i) { return reference[i] !== i; });
    return "References: " + alone.join(", ") + ". " + (links.join("; ") || "No queries") + ".";
  }

  // --- parts of the page ---
  function el(tag, attributes, children, space) {
    var node = space ? document.createElementNS(space, tag) : document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      if (name === "text") { node.textContent = attributes.text; } else { node.setAttribute(name, attributes[name]); }
    });
    (children || []).forEach(function (child) { node.appendChild(child); });
    return node;
  }

  function shape(tag, attributes, children) { return el(tag, attributes, children, SVG); }
  function minus(text) { return text.replace("-", "\u2212"); }

  function matrix(title, rows, columns) { // a table, and a function that fills it; `most` is the largest of each row
    var cells = rows.map(function () { return columns.map(function () { return el("td"); }); });
    var head = columns.map(function (name) { return el("th", { scope: "col", text: name }); });
    var body = rows.map(function (name, i) { return el("tr", {}, [el("th", { scope: "row", text: name })].concat(cells[i])); });
    return {
      table: el("table", { "data-matrix": title }, [
        el("caption", { text: title.replace("'", "\u2032") }), el("thead", {}, [el("tr", {}, [el("td")].concat(head))]), el("tbody", {}, body)
      ]),
      fill: function (values, most) {
        values.forEach(function (row, i) {
          row.forEach(function (value, j) {
            cells[i][j].textContent = value.toFixed(2).replace(/^0/, "");
            cells[i][j].style.setProperty("--heat", (100 * value).toFixed(0) + "%");
            cells[i][j].className = most && most[i] === j ? "sq-most" : "";
          });
        });
      }
    };
  }

  function start(box) {
    var data = JSON.parse(box.querySelector("script.sq-toy-data").textContent);
    var names = data.names, low = [data.xlim[0], data.ylim[0]], high = [data.xlim[1], data.ylim[1]];
    var width = UNIT * (high[0] - low[0]) + 2 * MARGIN, height = UNIT * (high[1] - low[1]) + 2 * MARGIN;
    var v; // the scores, a row for each patch

    function place(p) { return [MARGIN + UNIT * (p[0] - low[0]), MARGIN + UNIT * (high[1] - p[1])]; }

    // --- the plane ---
    var arrows = shape("g", {});
    var points = names.map(function (name, i) {
      var point = shape("g", { "class": "sq-point", tabindex: 0, role: "button", "aria-roledescription": "patch that can be moved", "data-name": name }, [
        shape("circle", { r: 22, "class": "sq-grip" }), shape("rect", { x: -8, y: -8, width: 16, height: 16 }), shape("text", { x: -13, y: -9, text: name })
      ]);
      var grip = null; // from the pointer to the middle of the point, while it is dragged
      function at(event) {
        var rect = svg.getBoundingClientRect(), scale = width / rect.width / UNIT;
        return [low[0] + (event.clientX - rect.left) * scale - MARGIN / UNIT, high[1] - (event.clientY - rect.top) * scale + MARGIN / UNIT];
      }
      // A finger on a point drags it, beside the points it scrolls the page: touch-action has no effect inside of an SVG.
      point.addEventListener("touchstart", function (event) { event.preventDefault(); }, { passive: false });
      point.addEventListener("pointerdown", function (event) {
        if (event.button !== 0) { return; }
        var from = at(event);
        grip = [v[i][0] - from[0], v[i][1] - from[1]];
        point.focus({ preventScroll: true });
        point.setPointerCapture(event.pointerId);
      });
      point.addEventListener("pointermove", function (event) {
        if (grip) { var to = at(event); move(i, to[0] + grip[0], to[1] + grip[1]); }
      });
      point.addEventListener("lostpointercapture", function () { grip = null; });
      point.addEventListener("keydown", function (event) {
        var way = KEYS[event.key], step = event.shiftKey ? 0.5 : 0.1;
        if (!way || event.ctrlKey || event.altKey || event.metaKey) { return; }
        event.preventDefault(); // the page does not scroll
        move(i, v[i][0] + step * way[0], v[i][1] + step * way[1]);
      });
      return point;
    });
    var svg = shape("svg", { viewBox: "0 0 " + width + " " + height, role: "application", "aria-label": "The patches in the plane of two scores. Each can be moved by the arrow keys, with Shift in larger steps." },
      grid().concat(arrows, points));

    function grid() {
      var o = place([0, 0]), start = place(low), end = place(high), path = data.path.map(place), found = [
        shape("path", { "class": "sq-axes", d: "M" + start[0] + " " + o[1] + "H" + end[0] + "M" + o[0] + " " + start[1] + "V" + end[1] }),
        shape("text", { x: end[0], y: start[1] - 2, "text-anchor": "end", text: "score for class 1" }),
        shape("text", { x: o[0] + 22, y: end[1] + 4, text: "score for class 2" }),
        shape("path", { "class": "sq-path", d: "M" + path.map(function (p) { return p.join(" "); }).join("L") })
      ];
      [-3, -2, -1, 1, 2, 3, 4].forEach(function (k) {
        var right = place([k, 0]), up = place([0, k]), text = minus(String(k));
        found.push(shape("text", { "class": "sq-tick", x: right[0], y: right[1] + 15, "text-anchor": "middle", text: text }));
        if (k > low[1]) { found.push(shape("text", { "class": "sq-tick", x: up[0] + 6, y: up[1] + 4, text: text })); }
      });
      return found.concat(path.map(function (p, i) { // the places that the text of the chapter names
        return shape("g", { "class": "sq-step", transform: "translate(" + p.join(" ") + ")" }, [shape("circle", { r: 9 }), shape("text", { y: 4.5, "text-anchor": "middle", text: i + 1 })]);
      }));
    }

    function arrow(from, to, colour) { // from one marker to the edge of the other; nothing to itself
      var p = place(from), q = place(to), length = Math.hypot(q[0] - p[0], q[1] - p[1]);
      if (length < 24) { return shape("g", {}); }
      var x = (q[0] - p[0]) / length, y = (q[1] - p[1]) / length, tip = [q[0] - 12 * x, q[1] - 12 * y];
      var wing = function (side) { return (tip[0] - 10 * x - 5 * side * y) + " " + (tip[1] - 10 * y + 5 * side * x); };
      return shape("path", { "class": "sq-arrow", stroke: colour, fill: colour, d: "M" + p.join(" ") + "L" + tip.join(" ") + "L" + wing(1) + "L" + wing(-1) + "L" + tip.join(" ") });
    }
    // --- the rest ---
    var A = matrix("A", names, ["1", "2"]), B = matrix("A'", ["1", "2"], names), M = matrix("M", names, names);
    var ident = "sq-toy-tau-" + (count += 1);
    var tau = el("input", { type: "range", id: ident, min: -1, max: 1, step: 0.05 });
    var chosen = el("output", { "for": ident });
    var reset = el("button", { type: "button", text: "Reset" });
    var says = el("p", { "class": "sq-says", "aria-live": "polite" });
    var controls = el("div", { "class": "sq-controls" }, [el("div", { "class": "sq-control" }, [el("label", { "for": ident, text: "threshold τ" }), tau, chosen]), reset]);
    var matrices = el("div", { "class": "sq-matrices" }, [A.table, M.table, B.table]);
    box.querySelector(".sq-scroll").replaceWith(controls, el("div", { "class": "sq-both" }, [svg, matrices]), says); // the still picture

    function move(i, x, y) { // to hundredths, inside of the plane
      v[i] = [x, y].map(function (to, k) { return Math.round(100 * Math.max(low[k], Math.min(high[k], to))) / 100; });
      update();
    }

    function update() {
      var found = cluster(v, Number(tau.value)), words = sentence(names, found.reference);
      var order = found.reference.filter(function (r, i) { return r === i; });
      var colours = found.reference.map(function (r) { return data.colours[order.indexOf(r) % data.colours.length]; });
      A.fill(found.A);
      B.fill(found.B);
      M.fill(found.M, found.most);
      arrows.replaceChildren.apply(arrows, v.map(function (p, i) { return arrow(p, v[found.reference[i]], colours[i]); }));
      points.forEach(function (point, i) {
        point.setAttribute("transform", "translate(" + place(v[i]).join(" ") + ")");
        point.setAttribute("data-x", v[i][0]);
        point.setAttribute("data-y", v[i][1]);
        point.setAttribute("aria-label", "Patch " + names[i] + " at " + minus(String(v[i][0])) + ", " + minus(String(v[i][1])));
        point.children[1].setAttribute("rx", found.reference[i] === i ? 0 : 8); // a square, or a circle
        point.children[1].setAttribute("fill", colours[i]);
      });
      chosen.textContent = minus(Number(tau.value).toFixed(2));
      if (says.textContent !== words) { says.textContent = words; }
    }

    function back() {
      v = data.points.map(function (p) { return p.slice(); });
      tau.value = data.tau;
      update();
    }

    tau.addEventListener("input", update);
    reset.addEventListener("click", back);
    back();
    box.setAttribute("data-ready", "");
  }

  function all() { document.querySelectorAll("div.sq-toy").forEach(start); }
  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", all); } else { all(); }
})();
