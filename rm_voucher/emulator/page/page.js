// The page of the emulator. It draws what the control API answers, as text: nothing that came over
// the network is ever read as markup.

const BASE = "/_emulator";
const REFRESH_MS = 1000;
const $ = (id) => document.getElementById(id);
const state = {
  merchant: "main", reveal: false, view: "batches", batch: null,
  search: "", status: "", failed: false, operation: "", overview: null, timer: null,
};

// Elements: h("td", {class: "path"}, "text", otherElement). Properties that begin with "on" listen.
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

const segment = (text) => encodeURIComponent(text);
const where = (path) => BASE + (state.merchant === "main" ? "" : `/merchants/${segment(state.merchant)}`) + path;

async function ask(method, url, body) {
  const options = { method, headers: {} };
  if (body !== undefined) { options.body = JSON.stringify(body); options.headers["Content-Type"] = "application/json"; }
  const response = await fetch(url, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `status ${response.status}`);
  return answer;
}
const get = (path, query = {}) => {
  const given = Object.entries({ ...query, ...(state.reveal ? { reveal: true } : {}) }).filter(([, value]) => value !== "" && value !== null && value !== false);
  return ask("GET", where(path) + (given.length ? "?" + new URLSearchParams(given) : ""));
};

let saidTimer;
function say(text, isBad = false) {
  $("said").className = isBad ? "bad" : "";
  $("said").textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { $("said").textContent = ""; }, 6000);
}
async function act(words, method, path, body, isShared = false) {
  try {
    const answer = await ask(method, isShared ? BASE + path : where(path), body);
    say(words);
    await refresh();
    return answer;
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

const money = (sen) => `RM ${(sen / 100).toFixed(2)}`;
const time = (at) => (at === null ? "–" : new Date(at * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC");
const clock = (at) => new Date(at * 1000).toISOString().slice(11, 23);
const number = (value) => value.toLocaleString("en");
function worth(batch) {
  if (batch.type === "DISCOUNT") return `${batch.discount_rate_bp / 100} % off`;
  return batch.type === "CASH" ? money(batch.amount_sen) : "Gift";
}
function expiry(batch) {
  if (batch.expiry.type === "PERMANENT") return "never expires";
  return batch.expiry.day === undefined ? `until ${String(batch.expiry.expiredAt).slice(0, 10)}` : `${batch.expiry.day} days once redeemed`;
}
function tone(status) {
  return { ISSUED: "warn", REDEEMED: "good", VOID: "soft", EXPIRED: "bad" }[status] || "soft";
}

function table(caption, headings, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows)));
}
function field(label, input) { return h("label", { class: "field" }, label, input); }
function input(name, properties = {}) { return h("input", { name, ...properties }); }
function select(name, options, chosen = "") {
  return h("select", { name }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
function form(properties, submit, ...children) {
  return h("form", { ...properties, onsubmit: (event) => { event.preventDefault(); submit(Object.fromEntries(new FormData(event.target)), event.target); } }, ...children);
}
const button = (text, onclick, kind = "") => h("button", { type: "button", class: `do ${kind}`, onclick }, text);

// Drawing anew keeps the focus, what is typed and what is open: a form is drawn once, data often.
function draw(view, forms, data) {
  const panel = $(`view-${view}`);
  if (!panel.firstChild) panel.append(h("div", { class: "forms" }, ...forms()), h("div", { class: "data" }));
  const place = panel.querySelector(".data");
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.replaceChildren(...data);
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

const views = {
  async batches() {
    const summary = await get("/summary");
    counts(summary);
    const found = state.batch !== null && summary.batches.some((batch) => batch.key === state.batch) ? await vouchers() : [];
    draw("batches", batchForms, [
      h("h2", {}, "Batches"),
      summary.batches.length ? h("div", { class: "grid" }, summary.batches.map(card)) : h("p", { class: "empty" }, "There is no batch yet. Add one above, or start the emulator with --batch TEA=100."),
      ...found,
    ]);
  },
  async requests() {
    const [summary, lines] = [await get("/summary"), await get("/exchanges", { failed: state.failed, operation: state.operation, most: 100 })];
    counts(summary);
    draw("requests", requestForms, [lines.length ? requestTable(lines) : h("p", { class: "empty" }, "No request came yet, or none that fits. Point a client at ", h("code", {}, location.origin), ": the file of --credentials-out has all the variables it needs.")]);
  },
  async callbacks() {
    const [summary, lines] = [await get("/summary"), await get("/deliveries")];
    counts(summary);
    draw("callbacks", callbackForms, [
      h("p", {}, summary.callbacks.url ? `They go to ${summary.callbacks.url}: ${number(summary.callbacks.delivered)} delivered, ${number(summary.callbacks.waiting)} waiting, ${number(summary.callbacks.given_up)} given up.` : "They go nowhere until a URL is set."),
      lines.length ? deliveryTable(lines) : h("p", { class: "empty" }, "None yet. A voucher that is redeemed or used causes one."),
    ]);
  },
  async people() {
    const summary = await get("/summary");
    counts(summary);
    draw("people", peopleForms, [
      summary.members.length ? table("Members", ["name", "country code", "phone number", "vouchers"], summary.members.map((one) => h("tr", {}, h("td", {}, one.name || "–"), h("td", {}, one.country_code), h("td", {}, one.phone_number), h("td", {}, one.vouchers)))) : h("p", { class: "empty" }, "There is no member yet."),
      summary.stores.length ? table("Stores", ["id", "may use vouchers"], summary.stores.map((one) => h("tr", {}, h("td", {}, one.id), h("td", {}, one.is_authorised ? "yes" : "no")))) : h("p", { class: "empty" }, "No store was made, so any store will do for a void."),
    ]);
  },
  async server() {
    const summary = await get("/summary");
    counts(summary);
    const met = Object.entries(summary.faults.met).flatMap(([operation, kinds]) => Object.entries(kinds).map(([fault, times]) => [operation, fault, times]));
    draw("server", serverForms, [
      h("div", { class: "panel" }, h("h2", {}, "Now"), h("dl", { class: "facts" },
        fact("Faults", summary.faults.rate ? `${Math.round(summary.faults.rate * 1000) / 10} % of requests` : "off"),
        fact("Windows", summary.faults.windows.length), fact("Rate limit", summary.rate_limit === null ? "none" : `${summary.rate_limit} a second`),
        fact("Answers that did not get out", summary.undelivered), fact("Client id", summary.client_id))),
      met.length ? table("Faults that were met", ["operation", "fault", "times"], met.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))) : null,
      summary.tokens.length ? table("Access tokens, the newest first", ["token", "good until", "good"], summary.tokens.map((one) => h("tr", {}, h("td", { class: "mono" }, one.token), h("td", {}, time(one.ends_at)), h("td", {}, one.is_good ? "yes" : "no")))) : h("p", { class: "empty" }, "No token was granted yet."),
    ].filter(Boolean));
  },
};
const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function counts(summary) {
  const set = (tab, value) => { $(`tab-${tab}`).querySelector(".count").textContent = value ? `(${number(value)})` : ""; };
  set("batches", summary.batches.length);
  set("requests", Object.values(summary.requests).reduce((sum, value) => sum + value, 0));
  set("callbacks", summary.callbacks.delivered + summary.callbacks.waiting + summary.callbacks.given_up);
  set("people", summary.members.length);
}

function card(batch) {
  const parts = [["issued", batch.issued - batch.redeemed - batch.void], ["redeemed", batch.redeemed], ["void", batch.void]];
  const bar = h("div", { class: "bar", role: "img", "aria-label": `${number(batch.issued)} of ${number(batch.quantity)} left the stock` });
  for (const [name, value] of parts) {
    const piece = h("span", { class: name });
    piece.style.width = `${batch.quantity ? (100 * value) / batch.quantity : 0}%`;
    bar.append(piece);
  }
  return h("article", { class: "panel batch" }, h("h3", {}, batch.label || batch.key), h("p", { class: "worth" }, worth(batch)),
    h("p", { class: "soft" }, `${batch.key} · ${expiry(batch)}${batch.minimum_spend_sen ? ` · from ${money(batch.minimum_spend_sen)}` : ""}${batch.is_static ? " · one code for all" : ""}`), bar,
    h("ul", { class: "legend" }, [["left", batch.balance], ...parts].map(([name, value]) => h("li", {}, h("i", { class: name, "aria-hidden": "true" }), `${number(value)} ${name === "void" ? "used" : name}`))),
    h("button", { type: "button", class: "link", "data-key": `batch ${batch.key}`, "aria-expanded": String(state.batch === batch.key), onclick: () => { state.batch = state.batch === batch.key ? null : batch.key; refresh(); } }, `${state.batch === batch.key ? "Hide" : "Show"} the vouchers of ${batch.key}`));
}

async function vouchers() {
  const page = await get(`/batches/${segment(state.batch)}/vouchers`, { search: state.search, status: state.status, size: 50 });
  const rows = page.vouchers.map((one) => h("tr", {},
    h("td", { class: "mono" }, h("button", { type: "button", class: "link", "data-key": `voucher ${one.place}`, onclick: () => showVoucher(one.place) }, `${one.code} (no. ${one.place + 1})`)),
    h("td", { class: tone(one.status) }, one.status), h("td", {}, time(one.changed_at)), h("td", {}, one.member || "–")));
  const more = page.next === null ? null : h("p", { class: "soft" }, "There are more: search for a part of the code.");
  return [h("h2", {}, `Vouchers of ${state.batch}`), rows.length ? table("The newest first", ["code", "status", "changed", "member"], rows) : h("p", { class: "empty" }, "None was issued yet, or none fits."), more].filter(Boolean);
}

function batchForms() {
  return [
    h("details", { class: "panel" }, h("summary", {}, "Add a batch"), form({ class: "row" }, async (given, target) => {
      const body = { key: given.key, label: given.label || given.key, quantity: Number(given.quantity), type: given.type };
      if (given.type === "CASH") body.amount_sen = Math.round(Number(given.worth) * 100);
      if (given.type === "DISCOUNT") body.discount_rate_bp = Math.round(Number(given.worth) * 100);
      if (given.days) body.expiry = { type: "DYNAMIC", day: Number(given.days) };
      if (await act(`Batch ${given.key} was added.`, "POST", "/batches", body)) target.reset();
    }, field("Key", input("key", { required: true })), field("Label", input("label")), field("Quantity", input("quantity", { type: "number", min: 0, value: 100, required: true, class: "short" })),
      field("Type", select("type", [["CASH", "cash"], ["DISCOUNT", "discount"], ["GIFT", "gift"]])), field("Worth (RM or %)", input("worth", { type: "number", min: 0, step: "0.01", value: 5, class: "short" })),
      field("Days after redeeming", input("days", { type: "number", min: 1, value: 30, class: "short" })), h("button", { class: "do main" }, "Add the batch"))),
    h("div", { class: "tools" },
      field("Search vouchers by code", h("input", { type: "search", id: "search", oninput: (event) => { state.search = event.target.value; later(); } })),
      field("Status", h("select", { onchange: (event) => { state.status = event.target.value; refresh(); } }, ["", "VALID", "ISSUED", "REDEEMED", "VOID", "EXPIRED"].map((one) => h("option", { value: one }, one || "any"))))),
  ];
}

function requestForms() {
  return [
    h("h2", {}, "Requests"),
    h("div", { class: "tools" },
      field("Operation", h("select", { onchange: (event) => { state.operation = event.target.value; refresh(); } }, ["", ...state.overview.operations].map((one) => h("option", { value: one }, one || "any")))),
      h("label", {}, h("input", { type: "checkbox", onchange: (event) => { state.failed = event.target.checked; refresh(); } }), " only what went wrong")),
    h("details", { class: "panel" }, h("summary", {}, "Let the next call fail"), form({ class: "row" }, (given) => act(`The next ${given.operation} fails.`, "POST", "/fail-next", { operation: given.operation, fault: given.code || given.fault, times: Number(given.times) }),
      field("Operation", select("operation", state.overview.operations.map((one) => [one, one]))), field("Fault", select("fault", singleFaults().map((one) => [one, one]))),
      field("or RM's error code", input("code", { placeholder: "VOUCHER_NOT_FOUND" })), field("Times", input("times", { type: "number", min: 1, value: 1, class: "short" })), h("button", { class: "do main" }, "Let it fail"))),
  ];
}
const singleFaults = () => state.overview.faults.filter((one) => one !== "closed");

function requestTable(lines) {
  return table("The newest first", ["no.", "request", "answer", "operation", "fault", "time (UTC)"], lines.map((one) => h("tr", {},
    h("td", {}, number(one.number)),
    h("td", { class: "path" }, h("button", { type: "button", class: "link", "data-key": `request ${one.number}`, onclick: () => showRequest(one.number) }, `${one.method} ${one.path}`)),
    h("td", { class: one.ending === "whole" && one.status < 400 ? "good" : "bad" }, answerWords(one)), h("td", {}, one.operation || "–"),
    h("td", { class: one.fault ? "warn" : "soft" }, one.fault || "–"), h("td", { class: "mono" }, clock(one.at)))));
}
function answerWords(one) {
  const words = one.ending === "whole" ? String(one.status) : { reset: "connection reset", stalled: "no answer", cut: `${one.status}, cut off`, slow: `${one.status}, slowly` }[one.ending];
  return one.code ? `${words} ${one.code}` : words;
}

function callbackForms() {
  return [h("h2", {}, "Callbacks"), h("details", { class: "panel" }, h("summary", {}, "Where they go"), form({ class: "row" }, (given) => act("It is set.", "PUT", "/callbacks", { url: given.url, interval_s: Number(given.interval_s) }),
    field("URL, empty for nowhere", input("url", { type: "url", placeholder: "http://127.0.0.1:8000/callback" })), field("Seconds to a repeat", input("interval_s", { type: "number", min: "0.1", step: "0.1", value: 60, class: "short" })), h("button", { class: "do main" }, "Set it")))];
}
function deliveryTable(lines) {
  return table("The newest first", ["no.", "voucher", "told", "attempts", "next try", "again"], lines.map((one) => h("tr", {},
    h("td", {}, one.number), h("td", { class: "mono" }, one.code), h("td", { class: tone(one.status) }, one.status),
    h("td", {}, one.attempts.length ? h("ol", {}, one.attempts.map((each) => h("li", { class: each.status === 200 ? "good" : "bad" }, `${clock(each.at)} ${each.status ?? each.failure}`))) : "none yet"),
    h("td", {}, one.next_at === null ? "–" : clock(one.next_at)),
    h("td", {}, one.next_at === null ? h("button", { type: "button", class: "do", "data-key": `resend ${one.number}`, "aria-label": `Send callback ${one.number} again`, onclick: () => act(`Callback ${one.number} is sent again.`, "POST", `/deliveries/${one.number}/resend`) }, "Send again") : ""))));
}

function peopleForms() {
  return [
    h("h2", {}, "Members and stores"),
    h("details", { class: "panel" }, h("summary", {}, "Add a member"), form({ class: "row" }, async (given, target) => { if (await act(`${given.name || "The member"} was added.`, "POST", "/members", given)) target.reset(); },
      field("Name", input("name")), field("Country code", input("country_code", { required: true, value: "60", pattern: "[0-9]+", class: "short" })), field("Phone number", input("phone_number", { required: true, pattern: "[0-9]+" })), h("button", { class: "do main" }, "Add the member"))),
    h("details", { class: "panel" }, h("summary", {}, "Add a store"), form({ class: "row" }, async (given, target) => { if (await act(`Store ${given.id} was added.`, "POST", "/stores", { id: given.id })) target.reset(); },
      field("Id", input("id", { required: true })), h("button", { class: "do main" }, "Add the store"))),
  ];
}

function serverForms() {
  return [
    h("div", { class: "grid" },
      h("div", { class: "panel" }, h("h2", {}, "Faults"), form({ class: "row" }, (given) => act("The faults are on.", "PUT", "/faults", { rate: Number(given.rate) / 100, ...(given.kind ? { kinds: [given.kind] } : {}) }),
        field("Share of requests, %", input("rate", { type: "number", min: 0, max: 100, step: "0.1", value: 20, class: "short" })), field("Kind", select("kind", [["", "all quick ones"], ...singleFaults().map((one) => [one, one])])),
        h("button", { class: "do main" }, "Turn on"), button("Turn off", () => act("The faults are off.", "PUT", "/faults", {})))),
      h("div", { class: "panel" }, h("h2", {}, "Rate limit"), form({ class: "row" }, (given) => act("The limit is set.", "PUT", "/rate-limit", { per_s: Number(given.per_s) }),
        field("Requests a second, 0 for any", input("per_s", { type: "number", min: 0, step: "0.1", value: 50, class: "short" })), h("button", { class: "do main" }, "Set it"))),
      h("div", { class: "panel" }, h("h2", {}, "Clock"), form({ class: "row" }, (given) => act("The clock was set ahead.", "POST", "/clock", { advance_s: Number(given.amount) * Number(given.unit) }, true),
        field("Ahead by", input("amount", { type: "number", min: 0, step: "any", value: 1, class: "short" })), field("Unit", select("unit", [["86400", "days"], ["3600", "hours"], ["60", "minutes"], ["1", "seconds"]])), h("button", { class: "do main" }, "Set it ahead"))),
      h("div", { class: "panel" }, h("h2", {}, "Begin anew"), h("p", { class: "soft" }, "Batches as they were at the start, no counts, no faults."),
        h("div", { class: "tools" }, button("Reset", () => confirmReset(), "danger"), button("Revoke all tokens", () => act("No access token is good any more.", "POST", "/tokens/revoke"))))),
  ];
}

function dialog(title, ...children) {
  const close = button("Close", () => $("detail").close());
  $("detail").replaceChildren(h("div", { class: "head" }, h("h2", { id: "detail-title" }, title), close), ...children.filter(Boolean));
  if (!$("detail").open) $("detail").showModal();
  close.focus();
}
function confirmReset() {
  dialog("Reset the emulator?", h("p", {}, state.merchant === "main" ? "All merchants begin anew, as the emulator was started. Vouchers that were issued since are forgotten." : `${state.merchant} begins anew.`),
    h("div", { class: "tools" }, button("Reset it", async () => { $("detail").close(); state.batch = null; await act("The emulator begins anew.", "POST", "/reset"); }, "danger")));
}
async function showVoucher(place) {
  const path = `/batches/${segment(state.batch)}/vouchers/${place}`;
  const one = await get(path);
  const use = async (action, words) => { if (await act(words, "POST", `${path}/${action}`, {})) showVoucher(place); };
  dialog(`Voucher ${one.code}`, h("p", { class: tone(one.status) }, one.status), h("p", { class: "soft" }, `${one.label} · ${one.expires_at === null ? "no end yet" : `ends ${time(one.expires_at)}`}`),
    one.qr_url ? h("p", {}, h("a", { href: one.qr_url, target: "_blank", rel: "noopener" }, "As the customer sees it")) : null,
    h("h3", {}, "History"), one.history.length ? h("ol", { class: "history" }, one.history.map((step) => h("li", {}, h("span", { class: tone(step.status) }, step.status), ` ${time(step.at)} `, h("span", { class: "soft" }, step.request ? `by request ${number(step.request)}${step.operation ? `, ${step.operation}` : ""}` : step.status === "EXPIRED" ? "by time" : "by hand")))) : h("p", { class: "soft" }, "Nothing happened to it yet."),
    h("div", { class: "tools" }, button("Redeem", () => use("redeem", "It is redeemed.")), button("Void", () => use("void", "It is used.")), button("Expire", () => use("expire", "It is expired."))));
}
async function showRequest(wanted) {
  const one = await get(`/exchanges/${wanted}`);
  const text = (value) => (value === null || value === "" ? h("p", { class: "soft" }, "None.") : h("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2)));
  dialog(`Request ${number(one.number)}`, h("p", { class: "mono" }, `${one.method} ${one.path}`), h("p", {}, time(one.at), " · ", answerWords(one), one.reason ? ` – ${one.reason}` : "", one.fault ? ` · fault ${one.fault}` : ""),
    one.signature ? signature(one.signature) : null,
    h("h3", {}, "Query"), text(Object.keys(one.query).length ? one.query : null), h("h3", {}, "Headers"), text(one.headers), h("h3", {}, "Body"), text(one.body), h("h3", {}, "Answer"), text(one.answer));
}
function signature(one) {
  const words = one.mistakes.length ? `The client signed another text: ${one.mistakes.join("; ")}.` : one.by_this_key ? "The client's key signed another text, by none of the usual mistakes." : "The signature is not by this client's key.";
  return h("div", { class: "panel" }, h("h3", {}, "The signature was refused"), h("p", { class: "bad" }, words),
    one.expected ? [h("h3", {}, "Expected"), h("pre", {}, marked(one.expected, one.expected_differs))] : h("p", { class: "soft" }, "Show codes to see the two texts."),
    one.signed ? [h("h3", {}, "Signed"), h("pre", {}, marked(one.signed, one.signed_differs))] : null);
}
function marked(text, spans) {
  const pieces = [];
  let end = 0;
  for (const [from, to] of spans) { pieces.push(text.slice(end, from), h("mark", {}, text.slice(from, to))); end = to; }
  return [...pieces, text.slice(end)];
}

let laterTimer;
function later() { clearTimeout(laterTimer); laterTimer = setTimeout(refresh, 250); }
async function refresh() {
  try {
    await views[state.view]();
  } catch (error) {
    say(error.message, true);
  }
}
function choose(view, focuses = false) {
  state.view = view;
  for (const tab of $("tabs").children) {
    const isChosen = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isChosen;
    if (isChosen && focuses) tab.focus();
  }
  if (location.hash !== `#${view}`) history.replaceState(null, "", `#${view}`);
  return refresh();
}
let shownTime = null; // the emulator's time less this browser's, and how far it was set ahead
function showOverview(overview) {
  $("fact-requests").textContent = number(overview.requests);
  shownTime = { off: overview.now - Date.now() / 1000, ahead: overview.ahead_s };
  showTime();
}
function showTime() {
  const overview = { now: Date.now() / 1000 + shownTime.off, ahead_s: shownTime.ahead };
  $("fact-clock").textContent = `${time(overview.now).slice(11)}${overview.ahead_s ? `, ${(overview.ahead_s / 86400).toFixed(1)} days ahead` : ""}`;
}
function fillMerchants(names) {
  const chosen = names.includes(state.merchant) ? state.merchant : "main";
  $("merchant").replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
  state.merchant = chosen;
}
function listen() {
  const events = new EventSource(`${BASE}/events`);
  events.onopen = () => { $("fact-live").textContent = "yes"; };
  events.onerror = () => { $("fact-live").textContent = "no connection"; };
  events.onmessage = (event) => {
    const news = JSON.parse(event.data);
    showOverview(news);
    if (news.merchants.length !== $("merchant").options.length) fillMerchants(news.merchants);
    // Once a second at most, however much arrives: the rest is in the counts.
    state.timer ??= setTimeout(async () => { await refresh(); state.timer = null; }, REFRESH_MS);
  };
}

async function begin() {
  state.overview = await ask("GET", `${BASE}/overview`);
  showOverview(state.overview);
  fillMerchants(state.overview.merchants);
  const tabs = [...$("tabs").children];
  const names = tabs.map((tab) => tab.id.slice(4));
  for (const tab of tabs) tab.addEventListener("click", () => choose(tab.id.slice(4)));
  $("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? names.length - 1 : step === undefined ? null : (names.indexOf(state.view) + step + names.length) % names.length;
    if (to !== null) { event.preventDefault(); choose(names[to], true); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); choose("batches").then(() => $("search").focus()); }
    else if (names[Number(event.key) - 1]) choose(names[Number(event.key) - 1], true);
  });
  $("merchant").addEventListener("change", (event) => { state.merchant = event.target.value; state.batch = null; refresh(); });
  $("reveal").addEventListener("change", (event) => { state.reveal = event.target.checked; refresh(); });
  await choose(names.includes(location.hash.slice(1)) ? location.hash.slice(1) : "batches");
  setInterval(showTime, 1000);
  listen();
}
begin().catch((error) => say(error.message, true));
