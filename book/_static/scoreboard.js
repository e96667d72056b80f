/* The scoreboard (div.sq-board, made by sqlib.experiments.show_scoreboard): search, verdict chips, a list or the
   papers' own table layout, reasons on a click, the state in the address, CSV. No kernel, no library. */
(function () {
  "use strict";

  var STEP = 100; // rows of the list that are drawn at a time
  var MARKS = { match: "=", close: "≈", shape: "≷", gap: "≠", "stand-in": "◇", "not run": "○", "ours only": "+" };
  var TITLES = {
    match: "as printed, within rounding",
    close: "within 0.05 dB of the printed drop (0.001 for SSIM)",
    shape: "the methods stand in the printed order",
    gap: "differs, and a reason is written down",
    "stand-in": "not run on the printed network, but on one of ours",
    "not run": "no score of ours; what it needs is listed",
    "ours only": "a score of ours that no paper prints"
  };
  var PAPERS = { dfsq: "DFSQ", "2dquant": "2DQuant", refqsr: "RefQSR" };
  var COLUMNS = ["paper", "table", "row", "set", "printed", "ours", "difference", "verdict"];

  function el(tag, options, children) {
    var node = document.createElement(tag);
    Object.keys(options || {}).forEach(function (name) {
      if (name === "text") { node.textContent = options.text; } else { node.setAttribute(name, options[name]); }
    });
    (children || []).forEach(function (child) { node.appendChild(child); });
    return node;
  }

  function minus(text) { return text.replace("-", "\u2212"); }

  function signed(text) { return (Number(text) > 0 ? "+" : "") + minus(text); }

  // A fall of 0.41 dB is shown as a change of -0.41, as in the tables of the chapters.
  function sure(margin) { return margin === "" ? "" : " ± " + margin; }
  function change(drop) { return drop === "" ? "" : signed(String((-Number(drop)).toFixed(drop.split(".")[1].length)).replace(/^-(0\.0+)$/, "$1")); }

  function unpack(data) {
    var texts = data.texts;
    return data.rows.map(function (row, at) {
      var table = texts.table[row[0]], cut = table.indexOf("-"), name = table.slice(cut + 1);
      var found = {
        at: at, key: table,
        paper: PAPERS[table.slice(0, cut)] || table.slice(0, cut),
        table: name.replace(/^table(\d)/, "Table $1").replace(/^[a-z]/, function (c) { return c.toUpperCase(); }).replace(/-/g, " "),
        network: texts.network[row[1]], method: texts.method[row[2]], bits: texts.bits[row[3]],
        dataset: texts.dataset[row[4]], metric: texts.metric[row[5]],
        printed: row[6], printedDrop: row[7], ours: row[8], ourDrop: row[9], ourMargin: row[10], difference: row[11],
        verdict: data.states[row[12]], reason: texts.reason[row[13]], others: row[14]
      };
      found.row = found.network + ", " + (found.method === "FP" ? "" : found.method + ", ") + found.bits;
      found.set = (found.dataset ? found.dataset + ", " : "") + found.metric;
      found.words = [found.paper, found.table, found.row, found.set, found.verdict].join(" ").toLowerCase();
      return found;
    });
  }

  function start(box) {
    var data = JSON.parse(box.querySelector("script.sq-board-data").textContent);
    var rows = unpack(data);
    var tables = rows.map(function (row) { return row.key; }).filter(function (key, i, all) { return all.indexOf(key) === i; }).sort();
    var state, limit, matched, opened = 0;

    // --- the controls ---
    var search = el("input", { type: "search", placeholder: "for example: dfsq set5 4-bit", "aria-label": "Search the scoreboard" });
    var choose = el("select", { "aria-label": "Table" }, [el("option", { value: "", text: "all tables" })].concat(tables.map(function (key) {
      var first = rows.find(function (row) { return row.key === key; });
      return el("option", { value: key, text: first.paper + " " + first.table });
    })));
    var views = ["list", "table"].map(function (name) {
      var button = el("button", { type: "button", "data-view": name, text: name === "list" ? "List" : "As in the paper" });
      button.addEventListener("click", function () { set({ view: name }); });
      return button;
    });
    var download = el("button", { type: "button", "class": "sq-csv", text: "Download CSV" });
    var chips = data.states.map(function (name) {
      var chip = el("button", { type: "button", "class": "sq-chip", "data-state": name, title: TITLES[name] }, [
        el("span", { "aria-hidden": "true", text: MARKS[name] + " " }), el("span", { text: name + " " }), el("b", {})
      ]);
      chip.addEventListener("click", function () {
        var on = state.verdicts.indexOf(name) >= 0;
        set({ verdicts: on ? state.verdicts.filter(function (other) { return other !== name; }) : state.verdicts.concat(name) });
      });
      return chip;
    });
    var count = el("p", { "class": "sq-count", "aria-live": "polite" });
    var title = el("span", {});
    var table = el("table", {}, [el("caption", {}, [title]), el("thead"), el("tbody")]);
    var scroll = el("div", { "class": "sq-scroll", role: "region", tabindex: "0", "aria-label": "Scoreboard" }, [table]);
    var more = el("button", { type: "button", "class": "sq-more" });
    [
      el("div", { "class": "sq-chips", role: "group", "aria-label": "Verdicts" }, chips),
      el("div", { "class": "sq-bar" }, [search, choose, el("div", { "class": "sq-views", role: "group", "aria-label": "Layout" }, views), download]),
      count, el("div", { "class": "sq-table" }, [scroll]), more
    ].forEach(function (part) { box.appendChild(part); });

    search.addEventListener("input", function () { set({ q: search.value }); });
    choose.addEventListener("change", function () { set({ table: choose.value }); });
    download.addEventListener("click", save);
    more.addEventListener("click", function () { limit += 5 * STEP; draw(); });
    window.addEventListener("hashchange", function () { if (read()) { update(); } });

    // --- the state, and the address that holds it ---
    function read() {
      var parts = location.hash.slice(1).split("&"), found = { q: "", verdicts: [], table: "", view: "list", sort: "" };
      var ours = parts.shift() === "board" && parts.length > 0;
      (ours ? parts : []).forEach(function (part) {
        var cut = part.indexOf("="), name = part.slice(0, cut), value = part.slice(cut + 1);
        try { value = decodeURIComponent(value.replace(/\+/g, " ")); } catch (error) { return; }
        if (name === "verdict") { found.verdicts = value.split(",").filter(function (v) { return data.states.indexOf(v) >= 0; }); }
        if (name === "q") { found.q = value; }
        if (name === "table" && tables.indexOf(value) >= 0) { found.table = value; }
        if (name === "view" && value === "table") { found.view = value; }
        if (name === "sort" && COLUMNS.indexOf(value.replace("-", "")) >= 0) { found.sort = value; }
      });
      if (found.view === "table" && !found.table) { found.table = tables[0]; }
      if (state && !ours) { return false; } // the address of another part of the page
      state = found;
      return ours;
    }

    function set(changed) {
      Object.keys(changed).forEach(function (name) { state[name] = changed[name]; });
      if (state.view === "table" && !state.table) { state.table = (matched[0] || rows[0]).key; }
      var parts = [["q", state.q], ["verdict", state.verdicts.join(",")], ["table", state.table], ["view", state.view === "table" ? "table" : ""], ["sort", state.sort]]
        .filter(function (part) { return part[1]; })
        .map(function (part) { return part[0] + "=" + encodeURIComponent(part[1]).replace(/%20/g, "+").replace(/%2C/g, ","); });
      history.replaceState(null, "", parts.length ? "#board&" + parts.join("&") : location.pathname + location.search);
      update();
    }

    function update() {
      var words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
      var near = rows.filter(function (row) {
        return (!state.table || row.key === state.table) && words.every(function (word) { return row.words.indexOf(word) >= 0; });
      });
      matched = state.verdicts.length ? near.filter(function (row) { return state.verdicts.indexOf(row.verdict) >= 0; }) : near;
      chips.forEach(function (chip) {
        var name = chip.getAttribute("data-state");
        chip.querySelector("b").textContent = near.filter(function (row) { return row.verdict === name; }).length.toLocaleString("en");
        chip.setAttribute("aria-pressed", String(state.verdicts.indexOf(name) >= 0));
      });
      views.forEach(function (button) { button.setAttribute("aria-pressed", String(button.getAttribute("data-view") === state.view)); });
      if (search.value !== state.q) { search.value = state.q; }
      choose.value = state.table;
      count.textContent = matched.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " values";
      limit = STEP;
      draw();
    }

    // --- drawing ---
    function draw() {
      var grid = state.view === "table";
      table.className = grid ? "sq-grid" : "sq-list";
      title.textContent = state.table && data.titles[state.table] || (state.table ? rows.find(function (row) { return row.key === state.table; }).paper + " " + choose.options[choose.selectedIndex].text.split(" ").slice(1).join(" ") : "Every printed value, and our own");
      table.tHead.replaceChildren();
      table.tBodies[0].replaceChildren();
      if (grid) { drawGrid(); } else { drawList(); }
      more.hidden = grid || matched.length <= limit;
      more.textContent = "Show more: " + limit.toLocaleString("en") + " of " + matched.length.toLocaleString("en") + " are here";
    }

    function details(row, columns) {
      var lines = [], notes = "";
      if (row.printedDrop !== "" || row.ourDrop !== "") {
        lines.push("From full precision: " + [["printed", row.printedDrop], ["ours", row.ourDrop]]
          .filter(function (part) { return part[1] !== ""; })
          .map(function (part) { return part[0] + " " + change(part[1]); }).join(", ") + sure(row.ourDrop === "" ? "" : row.ourMargin) + ".");
      }
      if (row.ours !== "" && row.ourDrop === "" && row.ourMargin !== "") { lines.push("Ours " + row.ours + sure(row.ourMargin) + "."); }
      if (row.ourMargin !== "" || row.others.some(function (other) { return other[3] !== ""; })) { notes = "± is half the 95 % bootstrap interval over the images."; }
      if (row.reason) { lines.push((row.verdict === "stand-in" || row.verdict === "not run" ? "Needs: " : "") + row.reason + (/[.!?]$/.test(row.reason) ? "" : ".")); }
      row.others.forEach(function (other) {
        lines.push("On " + other[0] + ": " + minus(other[1]) + (other[2] === "" ? sure(other[3]) : " (" + change(other[2]) + sure(other[3]) + ")") + ".");
      });
      if (notes) { lines.push(notes); }
      if (!lines.length) { lines.push(TITLES[row.verdict].replace(/^./, function (c) { return c.toUpperCase(); }) + "."); }
      var cell = el("td", { colspan: columns, role: "cell" }, [el("b", { text: row.row + ", " + row.set + ": " + row.verdict })]
        .concat(lines.map(function (line) { return el("p", { text: line }); })));
      opened += 1;
      return el("tr", { "class": "sq-why", id: "sq-why-" + opened, role: "row" }, [cell]);
    }

    function opens(button, row, columns) { // the reason opens below the row of the button, and closes again
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", function () {
        var line = button.closest("tr"), next = line.nextElementSibling;
        var was = button.getAttribute("aria-expanded") === "true";
        if (next && next.className === "sq-why") { next.remove(); }
        line.querySelectorAll("[aria-expanded=true]").forEach(function (other) { other.setAttribute("aria-expanded", "false"); });
        if (was) { return; }
        var why = details(row, columns);
        line.after(why);
        button.setAttribute("aria-expanded", "true");
        button.setAttribute("aria-controls", why.id);
      });
      return button;
    }

    function drawList() {
      table.tHead.appendChild(el("tr", { role: "row" }, COLUMNS.map(function (name) {
        var button = el("button", { type: "button", "class": "sq-sort", text: name });
        var head = el("th", { scope: "col", role: "columnheader" }, [button]);
        if (["printed", "ours", "difference"].indexOf(name) >= 0) { head.className = "sq-number"; }
        if (state.sort.replace("-", "") === name) { head.setAttribute("aria-sort", state.sort[0] === "-" ? "descending" : "ascending"); }
        button.addEventListener("click", function () {
          set({ sort: state.sort === name ? "-" + name : state.sort === "-" + name ? "" : name });
          table.tHead.querySelectorAll("button")[COLUMNS.indexOf(name)].focus();
        });
        return head;
      })));
      var body = document.createDocumentFragment();
      sorted().slice(0, limit).forEach(function (row) {
        var button = opens(el("button", { type: "button", "class": "sq-chip", "data-state": row.verdict, text: row.verdict }), row, COLUMNS.length);
        var line = el("tr", { role: "row" }, COLUMNS.map(function (name) {
          var text = row[name];
          if (name === "ours" && row.verdict === "stand-in") { text += " ◇"; }
          if (name === "row") { text = text.replace("-bit", "\u2011bit"); } // a hyphen that does not break
          if (name === "difference") { text = text === "" ? "" : signed(text); }
          var cell = el("td", { role: "cell", "data-name": name }, name === "verdict" ? [button] : []);
          if (name !== "verdict") { cell.textContent = text; }
          if (["printed", "ours", "difference"].indexOf(name) >= 0) { cell.className = "sq-number"; }
          return cell;
        }));
        body.appendChild(line);
      });
      table.tBodies[0].appendChild(body);
    }

    function sorted() {
      if (!state.sort) { return matched; }
      var down = state.sort[0] === "-", name = state.sort.replace("-", "");
      var key = function (row) {
        if (name === "verdict") { return data.states.indexOf(row.verdict); }
        return row[name] !== "" && !isNaN(row[name]) ? Number(row[name]) : row[name];
      };
      return matched.map(function (row) { return [key(row), row]; }).sort(function (first, second) {
        var a = first[0], b = second[0], numbers = (typeof a === "number") - (typeof b === "number");
        if (numbers) { return -numbers; } // rows without a value stay last
        var order = typeof a === "number" ? a - b : a.localeCompare(b);
        return (down ? -order : order) || first[1].at - second[1].at;
      }).map(function (pair) { return pair[1]; });
    }

    function drawGrid() {
      var shown = new Set(), columns = [], lines = new Map(), cells = new Map();
      matched.forEach(function (row) {
        shown.add(row.row);
        if (columns.indexOf(row.set) < 0) { columns.push(row.set); }
      });
      rows.forEach(function (row) {
        if (row.key !== state.table || !shown.has(row.row)) { return; }
        lines.set(row.row, row);
        cells.set(row.row + "|" + row.set, row);
      });
      table.tHead.appendChild(el("tr", {}, [el("th", { scope: "col", text: "row" })].concat(columns.map(function (name) { return el("th", { scope: "col", text: name }); }))));
      lines.forEach(function (_, name) {
        table.tBodies[0].appendChild(el("tr", {}, [el("th", { scope: "row", text: name.replace("-bit", "\u2011bit") })].concat(columns.map(function (column) {
          var row = cells.get(name + "|" + column);
          if (!row) { return el("td"); }
          var words = (row.printed ? "printed " + row.printed + ", " : "") + (row.ours ? "ours " + row.ours + ", " : "") + row.verdict;
          var button = el("button", { type: "button", "data-state": row.verdict, "aria-label": words, title: words }, [
            el("span", { text: row.printed || " " }), el("span", { text: MARKS[row.verdict] + " " + row.ours })
          ]);
          return el("td", {}, [opens(button, row, columns.length + 1)]);
        }))));
      });
    }

    // --- what is shown, as a file ---
    function save() {
      var names = ["paper", "table", "network", "method", "bits", "dataset", "metric", "printed", "printedDrop", "ours", "ourDrop", "ourMargin", "difference", "verdict", "reason"];
      var quoted = function (text) { return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text; };
      var text = [names.join(",")].concat(sorted().map(function (row) { return names.map(function (name) { return quoted(row[name]); }).join(","); })).join("\n") + "\n";
      var link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "scoreboard.csv" });
      link.click();
      setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
    }

    var asked = read();
    update();
    if (asked) { box.scrollIntoView(); }
    box.setAttribute("data-ready", "");
  }

  function all() { document.querySelectorAll("div.sq-board").forEach(start); }
  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", all); } else { all(); }
})();
