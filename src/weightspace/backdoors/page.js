// The page of a scan: which files are shown, and in which order. Without it all are shown, the gravest first.

function start() {
  const list = document.getElementById("findings");
  const tools = document.querySelector(".tools");
  if (!tools) return; // one file needs no choosing
  document.documentElement.classList.add("alive");
  const given = [...list.children];
  const [sort, search, shown] = ["sort", "search", "shown"].map((name) => document.getElementById(name));
  const buttons = [...tools.querySelectorAll("button[data-verdict]")];
  const total = given.reduce((sum, one) => sum + Number(one.dataset.count), 0);
  // What has no score comes after all that has one
  const score = (one) => Number(one.dataset.score ?? -Infinity);
  const orders = {
    gravest: (a, b) => given.indexOf(a) - given.indexOf(b),
    score: (a, b) => (score(a) === score(b) ? orders.gravest(a, b) : score(b) - score(a)),
    file: (a, b) => a.dataset.file.localeCompare(b.dataset.file),
    size: (a, b) => Number(b.dataset.size) - Number(a.dataset.size),
  };

  function apply() {
    const chosen = new Set(buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict));
    const word = search.value.toLowerCase();
    let count = 0;
    for (const one of given) {
      one.hidden = !(chosen.has(one.dataset.of) && one.dataset.file.toLowerCase().includes(word));
      if (!one.hidden) count += Number(one.dataset.count);
    }
    list.append(...[...given].sort(orders[sort.value]));
    shown.textContent = count === total ? `${total} files` : `${count} of ${total} files`;
    const kept = new URLSearchParams();
    if (chosen.size < buttons.length) kept.set("verdicts", [...chosen].join(" "));
    if (sort.value !== "gravest") kept.set("sort", sort.value);
    if (word) kept.set("name", search.value);
    history.replaceState(null, "", `#${kept}`);
  }

  function read() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const chosen = kept.get("verdicts")?.split(" ");
    for (const button of buttons) button.setAttribute("aria-pressed", String(!chosen || chosen.includes(button.dataset.verdict)));
    sort.value = kept.get("sort") in orders ? kept.get("sort") : "gravest";
    search.value = (kept.get("name") ?? "").slice(0, 200);
    apply();
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  sort.addEventListener("change", apply);
  search.addEventListener("input", apply);
  window.addEventListener("hashchange", read);
  read();
}

start();
