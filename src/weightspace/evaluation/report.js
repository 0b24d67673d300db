// The report's table of single networks: one target, one predictor, right answers or wrong ones, the surest first.
// What stands here comes from a record somebody has given: texts become text nodes, never markup.

const AT_ONCE = 25;

function start() {
  const stored = document.getElementById("data");
  if (!stored) return;
  const data = JSON.parse(stored.textContent);
  document.documentElement.classList.add("alive");
  const byId = (name) => document.getElementById(name);
  const [target, predictor, which] = ["target", "predictor", "which"].map(byId);
  let shown = AT_ONCE;
  let open = null;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const percent = (p) => `${(100 * p).toFixed(1)}%`;
  const best = (row) => row.reduce((found, p, i) => (p > row[found] ? i : found), 0);
  const offer = (select, names) => select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));

  // One network: what every predictor said of every class.
  function drilled(answers, place) {
    const names = Object.keys(answers.probabilities);
    return element("table", { class: "one" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "class"),
        ...names.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...answers.classes.map((title, c) => element("tr", {},
        element("th", { scope: "row" }, c === answers.truth[place] ? `${title} (the truth)` : title),
        ...names.map((name) => {
          const row = answers.probabilities[name][place];
          const cell = element("td", {}, percent(row[c]));
          if (best(row) === c) cell.append(c === answers.truth[place] ? " \u2713" : " \u2717");
          return cell;
        })))));
  }

  function apply() {
    const answers = data[target.value];
    const rows = answers.probabilities[predictor.value].map((row, place) => {
      const answer = best(row);
      return { place, answer, sure: row[answer], right: answer === answers.truth[place] };
    });
    const chosen = rows.filter((row) => which.value === "all" || row.right === (which.value === "right")).sort((a, b) => b.sure - a.sure);
    // A network that is asked for by its number is shown, however many stand before it
    const asked = chosen.findIndex((row) => answers.networks[row.place] === open);
    if (asked >= shown) shown = asked + 1;
    byId("singles").replaceChildren(...chosen.slice(0, shown).flatMap((row) => {
      const number = answers.networks[row.place];
      const button = element("button", { type: "button", "aria-expanded": String(number === open) }, `network ${number}`);
      button.addEventListener("click", () => { open = number === open ? null : number; apply(); document.querySelector(`[data-network="${number}"] button`)?.focus(); });
      const line = element("tr", { "data-network": number }, element("th", { scope: "row" }, button),
        element("td", {}, answers.classes[answers.truth[row.place]]),
        element("td", {}, `${row.right ? "\u2713" : "\u2717"} ${answers.classes[row.answer]}`), element("td", {}, percent(row.sure)));
      return number === open ? [line, element("tr", {}, element("td", { colspan: "4" }, drilled(answers, row.place)))] : [line];
    }));
    byId("more").hidden = chosen.length <= shown;
    byId("told").textContent = `${chosen.length} of ${rows.length} networks${chosen.length > shown ? `, the first ${shown} are shown` : ""}`;
    const kept = new URLSearchParams({ target: target.value, predictor: predictor.value, which: which.value });
    if (open !== null) kept.set("network", open);
    if (touched) history.replaceState(null, "", `#${kept}`);
  }

  let touched = false;
  function read() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const pick = (select, names, name) => { offer(select, names); select.value = names.includes(kept.get(name)) ? kept.get(name) : select.value; };
    pick(target, Object.keys(data), "target");
    const names = Object.keys(data[target.value].probabilities);
    pick(predictor, names, "predictor");
    if (!names.includes(kept.get("predictor")) && names.includes("meta-model")) predictor.value = "meta-model";
    which.value = ["all", "wrong", "right"].includes(kept.get("which")) ? kept.get("which") : "wrong";
    open = kept.has("network") ? Number(kept.get("network")) : null;
    apply();
  }

  for (const select of [target, predictor, which]) {
    select.addEventListener("change", () => { touched = true; shown = AT_ONCE; open = null; apply(); });
  }
  byId("more").addEventListener("click", () => { shown += AT_ONCE; apply(); });
  byId("singles").addEventListener("click", () => { touched = true; }, true);
  window.addEventListener("hashchange", read);
  read();
}

start();
