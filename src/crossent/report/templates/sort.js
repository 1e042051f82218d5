"use strict";
// Column headers of a sortable table become buttons; without scripts the table stays as it is.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rising = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        if (text === "∞") return Infinity;
        const number = Number(text.replace(/^[<>]|[ %,]/g, ""));
        return text !== "" && !Number.isNaN(number) ? number : text;
      };
      const compare = (a, b) =>
        typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        const empty = (a === "–") - (b === "–");
        return empty || (rising ? compare(a, b) : compare(b, a));
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
