// Shows the live feed and tells the page when it is worth asking again.
// Strings from the house are only ever set as text.
const feeds = [...document.querySelectorAll("[data-live]")];
const today = document.getElementById("today");
const units = ["B", "kB", "MB", "GB", "TB"];
const protection = { encrypted: "Encrypted", readable: "Readable", "cannot-tell": "Can’t tell" };

function bytes(n) {
  let u = 0;
  while (n >= 999.5 && u < units.length - 1) { n /= 1000; u++; }
  return (u && n < 9.95 ? n.toFixed(1) : Math.round(n)) + "\u00a0" + units[u];
}

// The marks that turn or hide text are replaced, as on the server.
function clean(text, limit = 80) {
  const shown = text.replace(/[^\P{C}]|[\u2028\u2029]/gu, "\ufffd");
  return shown.length > limit ? shown.slice(0, limit) + "…" : shown;
}

function element(tag, text, kind) {
  const e = document.createElement(tag);
  e.textContent = text;
  if (kind) e.className = kind;
  return e;
}

function badge(e) {
  if (e.what === "event") return element("span", "Event", "badge allow");
  if (e.verdict === "block") return element("span", "Blocked", "badge block");
  if (e.verdict === "rewrite") return element("span", "Answered by your list", "badge noted");
  if (e.noted) return element("span", "Would be blocked", "badge noted");
  if (e.what === "lookup") return element("span", "Looked up", "badge allow");
  if (e.harmless) return element("span", "Readable, harmless", "badge");
  return element("span", protection[e.protection] || "Connection", "badge " + (e.protection || "allow"));
}

function row(e) {
  const li = element("li", "", "new");
  const at = new Date(e.at);
  const time = element("time", at.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" }));
  time.dateTime = e.at;
  li.append(time, " ", badge(e), " ");
  if (e.device) {
    const a = element("a", clean(e.device_name, 40));
    a.href = "/devices/" + encodeURIComponent(e.device);
    li.append(a, " ");
  }
  if (e.what === "event") {
    li.append(element("span", clean(e.text || e.kind, 200)));
    return li;
  }
  li.append(e.name ? element("span", clean(e.name), "name") : element("em", "counted, not by name"));
  const more = [clean(e.organisation)];
  if (e.what === "flow") more.push(bytes(e.bytes_out) + " out", bytes(e.bytes_in) + " in", clean(e.why));
  if (e.list) more.push("list " + clean(e.list));
  li.append(" ", element("small", more.filter(Boolean).join(" · ")));
  return li;
}

function show(e) {
  for (const feed of feeds) {
    feed.querySelector(".quiet")?.remove();
    feed.prepend(row(e));
    while (feed.children.length > Number(feed.dataset.live)) feed.lastElementChild.remove();
  }
}

// The table is fetched again at most every 5 seconds, never under a person's
// hands and never for a page that nobody sees.
let due = 0;
function refresh() {
  const table = document.getElementById("today");
  if (!table || due) return;
  due = setTimeout(() => {
    due = 0;
    const now = document.getElementById("today");
    if (!document.hidden && !now.contains(document.activeElement) && !String(getSelection())) now.dispatchEvent(new Event("refresh"));
  }, 5000);
}

if (feeds.length) {
  const source = new EventSource("/api/v1/live");
  for (const what of ["lookup", "flow", "event"]) {
    source.addEventListener(what, (m) => { show(JSON.parse(m.data)); if (today) refresh(); });
  }
  addEventListener("pagehide", () => source.close());
}
