// What the pages do beside being read: the table of tags is searched, sorted and filtered, a tag and its boxes
// are shown together, and the theme is kept. Texts of the run are only ever compared or set as text.
"use strict";

(() => {
  const root = document.documentElement;
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window */ } };

  const theme = kept("tagmill-theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  const button = document.getElementById("theme");
  if (button) {
    const isDark = () => root.dataset.theme === "dark" ||
      (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      keep("tagmill-theme", root.dataset.theme);
      name();
    });
  }

  // Tables that can be sorted: a click on a column's name, again for the other way round.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    table.querySelectorAll("th[scope=col]").forEach((head) => {
      const place = head.cellIndex;
      const isNumber = head.classList.contains("number");
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.append(...head.childNodes);
      head.append(sorter);
      sorter.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const direction = before ? (before === "ascending" ? -1 : 1) : (isNumber ? -1 : 1);
        table.querySelectorAll("th[aria-sort]").forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const value = (row) => {
          const text = row.cells[place].textContent.trim();
          return isNumber ? sizeOf(text) : text;
        };
        const rows = Array.from(body.rows, (row) => [value(row), row]);
        rows.sort(([a], [b]) => direction * (isNumber ? a - b : a.localeCompare(b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  function sizeOf(text) {
    if (text.startsWith("under")) return 0.5;
    if (text.startsWith("over")) return 99.5;
    const number = parseFloat(text.replace(/[^0-9.-]/g, ""));
    return Number.isNaN(number) ? -1 : number;
  }

  // The filters of the table of tags; an address may name a rule, as links of the overview do.
  const filters = document.getElementById("filters");
  const tags = document.getElementById("tags");
  if (filters && tags) {
    const search = document.getElementById("search");
    const selects = ["kind", "source", "rule"].map((name) => document.getElementById(name));
    const said = document.getElementById("count");
    const rows = Array.from(tags.tBodies[0].rows);
    const asked = new URLSearchParams(location.search);
    for (const select of selects) {
      const value = asked.get(select.id);
      if (value && Array.from(select.options).some((one) => one.value === value)) select.value = value;
    }
    const apply = () => {
      const text = search.value.trim().toLowerCase();
      let count = 0;
      for (const row of rows) {
        const isShown = row.cells[0].textContent.toLowerCase().includes(text) && selects.every(
          (select) => !select.value || row.dataset[select.id].split(" ").includes(select.value));
        row.hidden = !isShown;
        count += isShown;
      }
      said.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} tags`;
    };
    filters.hidden = false;
    search.addEventListener("input", apply);
    for (const select of selects) select.addEventListener("change", apply);
    apply();
  }

  // On the page of an image: a tag's row, its words and its boxes light up together.
  const photo = document.querySelector(".photo");
  const parts = photo ? Array.from(document.querySelectorAll("[data-tag]")) : [];
  const pick = (tag) => {
    photo.classList.toggle("picks", tag !== null && parts.some((one) => one.matches(".box") && one.dataset.tag === tag));
    for (const one of parts) one.classList.toggle("picked", tag !== null && one.dataset.tag === tag);
  };
  for (const one of parts) {
    one.addEventListener("mouseenter", () => pick(one.dataset.tag));
    one.addEventListener("mouseleave", () => pick(null));
    one.addEventListener("focusin", () => pick(one.dataset.tag));
    one.addEventListener("focusout", () => pick(null));
  }
})();
