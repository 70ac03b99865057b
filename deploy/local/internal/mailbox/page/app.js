// The mailbox page polls the list and shows the selected message. The content of a message
// is inserted as text only, or in a sandboxed frame.

const pollEvery = 1500;
const shown = 200;

const $ = (id) => document.getElementById(id);
const main = document.querySelector("main");

let messages = [];
let total = 0;
let offline = false;
let current = null;
let tab = "html";
let lastList = "";

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const address = (a) => (a ? (a.Name ? `${a.Name} <${a.Address}>` : a.Address) : "");
const addresses = (list) => list.map(address).join(", ");

function when(iso) {
  const date = new Date(iso);
  const today = new Date().toDateString() === date.toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

async function get(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response;
}

async function refresh() {
  const words = $("search").value.trim();
  const path = words ? `/api/v1/search?query=${encodeURIComponent(words)}&limit=${shown}` : `/api/v1/messages?limit=${shown}`;
  try {
    const text = await (await get(path)).text();
    const changed = offline || text !== lastList;
    offline = false;
    if (!changed) return;
    lastList = text;
    const list = JSON.parse(text);
    messages = list.messages;
    total = list.total;
    document.title = list.unread ? `(${list.unread}) Mailbox` : "Mailbox";
    const found = words ? `${list.messages_count} of ${total}` : `${total} message${total === 1 ? "" : "s"}`;
    $("count").textContent = list.messages_count > messages.length ? `newest ${messages.length} of ${found}` : found;
  } catch {
    offline = true;
    lastList = "";
    $("count").textContent = "not connected";
  }
  renderList();
}

function item(m) {
  const node = element("button", m.Read ? "item" : "item unread");
  node.type = "button";
  node.dataset.id = m.ID;
  node.setAttribute("aria-current", String(current?.ID === m.ID));
  const top = element("span", "top");
  top.append(element("span", "to", addresses([...m.To, ...m.Cc, ...m.Bcc]) || "(no recipient)"));
  const time = element("time", "", when(m.Created));
  time.dateTime = m.Created;
  time.title = new Date(m.Created).toLocaleString();
  top.append(time);
  node.append(top, element("span", "subject", m.Subject || "(no subject)"), element("span", "from", `from ${address(m.From)}`), element("span", "snippet", m.Snippet));
  node.addEventListener("click", () => open(m.ID));
  return node;
}

function renderList() {
  const focused = document.activeElement?.dataset?.id;
  $("list").replaceChildren(...messages.map(item));
  if (focused) $("list").querySelector(`[data-id="${focused}"]`)?.focus();
  $("clear").disabled = total === 0;
  main.classList.toggle("bare", messages.length === 0);
  main.classList.toggle("reading", current !== null);
  $("message").hidden = current === null;
  $("empty").hidden = current !== null;
  const [title, text] = offline
    ? ["The mailbox is not running", "It stops together with the stack. This page reconnects automatically."]
    : total === 0
      ? ["No mail yet", "Sign up with any email address. All mail arrives here and is not delivered anywhere else."]
      : messages.length === 0
        ? ["No results", "No message matches the search."]
        : ["Select a message", "New messages appear at the top automatically."];
  $("empty").querySelector("h2").textContent = title;
  $("empty").querySelector("p").textContent = text;
}

async function open(id) {
  try {
    current = await (await get(`/api/v1/message/${id}`)).json();
  } catch {
    current = null;
  }
  if (current) {
    tab = current.HTML ? "html" : "text";
    history.replaceState(null, "", `#${current.ID}`);
    renderMessage();
  } else {
    history.replaceState(null, "", location.pathname);
  }
  renderList();
  refresh();
}

function renderMessage() {
  $("subject").textContent = current.Subject || "(no subject)";
  const fields = [
    ["From", address(current.From)],
    ["To", addresses(current.To)],
    ["Cc", addresses(current.Cc)],
    ["Bcc", addresses(current.Bcc)],
    ["Reply to", addresses(current.ReplyTo)],
    ["Date", new Date(current.Date).toLocaleString()],
  ].filter(([, value]) => value);
  const nodes = fields.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]);
  const files = [...current.Attachments, ...current.Inline];
  if (files.length > 0) {
    const dd = element("dd");
    for (const file of files) {
      const link = element("a", "", `${file.FileName || file.ContentType} (${file.Size} bytes)`);
      link.href = `/api/v1/message/${current.ID}/part/${file.PartID}`;
      dd.append(link, " ");
    }
    nodes.push(element("dt", "", "Files"), dd);
  }
  $("fields").replaceChildren(...nodes);
  renderView();
}

// linked returns the text with its web addresses as links.
function linked(text) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]]/g)) {
    pieces.push(text.slice(end, match.index));
    const link = element("a", "", match[0]);
    link.href = match[0];
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    pieces.push(link);
    end = match.index + match[0].length;
  }
  pieces.push(text.slice(end));
  return pieces;
}

async function renderView() {
  $("tab-html").disabled = !current.HTML;
  for (const button of document.querySelectorAll("[role=tab]")) {
    button.setAttribute("aria-selected", String(button.dataset.tab === tab));
  }
  if (tab === "html") {
    const frame = element("iframe");
    frame.title = "The message";
    frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
    frame.src = `/view/${current.ID}.html`;
    $("view").replaceChildren(frame);
    return;
  }
  const pre = element("pre", tab);
  if (tab === "text") {
    pre.append(...(current.Text ? linked(current.Text) : ["This message has no plain-text version."]));
    $("view").replaceChildren(pre);
    return;
  }
  const id = current.ID;
  try {
    pre.textContent = await (await get(`/api/v1/message/${id}/raw`)).text();
  } catch (err) {
    pre.textContent = `Could not load the source: ${err.message}`;
  }
  if (current?.ID === id && tab === "source") $("view").replaceChildren(pre);
}

function close() {
  current = null;
  history.replaceState(null, "", location.pathname);
  renderList();
}

async function remove(ids) {
  try {
    await get("/api/v1/messages", { method: "DELETE", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ IDs: ids }) });
  } finally {
    close();
    refresh();
  }
}

for (const button of document.querySelectorAll("[role=tab]")) {
  button.addEventListener("click", () => {
    tab = button.dataset.tab;
    renderView();
  });
}
$("back").addEventListener("click", close);
$("clear").addEventListener("click", () => remove([]));
$("delete").addEventListener("click", () => remove([current.ID]));
$("search").addEventListener("input", refresh);
$("list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && document.activeElement?.[step];
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.click();
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
setInterval(() => document.hidden || refresh(), pollEvery);

await refresh();
if (location.hash.length > 1) open(location.hash.slice(1));
else if (messages.length === 1) open(messages[0].ID);
