"use strict";
// What the server writes is shown as it is, and read again when something has changed. The script
// itself writes one thing, the turn that runs, and that as text alone: it makes no markup of text.

const PARTS = ["tasks", "thread-head", "thread", "side"];
const TURN_EVENTS = ["queued", "start", "step", "chunk", "tool", "waiting", "retry", "done", "error"];
const PAUSES = [300, 600, 1200, 2500, 5000]; // milliseconds before the next try to connect
const KEPT = "clasper.turn"; // of this tab: a page that is loaded again goes on with its turn
const $ = (id) => document.getElementById(id);
const body = document.body;

let turn = null; // the one that is followed: {job, user, task, role, last, tries, steps, source}
let failed = null; // what could not be sent, with its key: sent again it is the same message

// ---- The server's parts

let reading = null;
let isStale = false;
/** Show what the server has now; the promise ends with a look that began after this call. */
function refresh() {
  isStale = true;
  reading ??= readAll().finally(() => { reading = null; });
  return reading;
}

async function readAll() {
  while (isStale) {
    isStale = false;
    const answer = await fetch(location.href, { cache: "no-store" }).catch(() => null);
    if (answer?.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  }
}

function show(fresh) {
  const atEnd = isAtEnd();
  for (const id of PARTS) {
    // While a reply is written it stands below the thread, and is not to stand in it, too.
    if (id !== "thread" || !turn || turn.sending) put($(id), fresh.getElementById(id));
  }
  const worker = fresh.getElementById("worker");
  $("worker").textContent = worker.textContent;
  $("worker").className = worker.className;
  $("send").disabled = Boolean(turn) || worker.className !== "ready";
  document.title = fresh.title;
  if (atEnd) scrollToEnd();
}

function put(old, fresh) {
  showTimes(fresh);
  const open = [...old.querySelectorAll("details[open]")].map((one) => one.dataset.key);
  for (const one of fresh.querySelectorAll("details")) one.open = open.includes(one.dataset.key);
  if (old.innerHTML === fresh.innerHTML) return;
  old.replaceChildren(...fresh.childNodes);
}

function showTimes(root) {
  const today = new Date().toDateString();
  for (const one of root.querySelectorAll("time")) {
    const moment = new Date(one.dateTime);
    const isToday = moment.toDateString() === today;
    one.textContent = isToday
      ? moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
      : moment.toLocaleDateString([], { day: "numeric", month: "short" });
    one.title = moment.toLocaleString();
  }
}

let soon = 0;
function refreshSoon() {
  clearTimeout(soon);
  soon = setTimeout(refresh, 120);
}

const isAtEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;
const scrollToEnd = () => { $("scroll").scrollTop = $("scroll").scrollHeight; };

// ---- That something has changed

let changes = null;
let changeTries = 0;
function listen() {
  if (changes || document.hidden) return; // a hidden tab takes no connection from the others
  const source = new EventSource(`/page/events?user=${encodeURIComponent(body.dataset.user)}`);
  changes = source;
  source.addEventListener("ready", () => { changeTries = 0; refresh(); });
  for (const kind of ["task", "message", "document", "notification", "tool_request"]) {
    source.addEventListener(kind, refreshSoon);
  }
  source.onerror = () => {
    source.close();
    if (changes !== source) return;
    changes = null;
    setTimeout(listen, pause(changeTries++));
  };
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return listen();
  changes?.close();
  changes = null;
});
setInterval(() => { if ($("worker").className !== "ready") refresh(); }, 5000);

const pause = (tries) => PAUSES[Math.min(tries, PAUSES.length - 1)];

// ---- A turn

async function send() {
  const message = $("message").value;
  if (!message.trim() || turn || $("send").disabled) return;
  const request = {
    user_id: body.dataset.user,
    agent_role: $("role").value,
    task_id: body.dataset.task || null,
    message,
  };
  const same = failed && JSON.stringify(failed.request) === JSON.stringify(request);
  const key = same ? failed.key : crypto.randomUUID();
  turn = { sending: true };
  say("Sending", "busy");
  $("figures").textContent = "";
  const { answer, problem } = await call("/page/turns", "POST", { ...request, idempotency_key: key });
  if (problem) {
    turn = null;
    failed = { request, key };
    return say(`Not sent: ${problem} Enter sends it again.`, "failed");
  }
  failed = null;
  $("message").value = "";
  fit();
  body.dataset.task = answer.task_id;
  const address = new URLSearchParams({ user: request.user_id, task: answer.task_id });
  history.replaceState(null, "", `/?${address}`);
  await refresh();
  scrollToEnd();
  begin({ job: answer.job_id, user: request.user_id, task: answer.task_id, role: request.agent_role });
}

/** Follow a turn; from its first event, so that a page that is loaded again shows it whole. */
function begin({ job, user, task, role }) {
  turn = { job, user, task, role, last: "", tries: 0, steps: new Map(), tools: new Map(), source: null };
  sessionStorage.setItem(KEPT, JSON.stringify({ job, user, task, role }));
  const name = document.createElement("b");
  name.textContent = role;
  const header = document.createElement("header");
  header.append(name);
  $("live").replaceChildren(header);
  $("live").hidden = true;
  $("stop").hidden = false;
  $("send").disabled = true;
  say("Queued", "busy");
  follow(turn);
}

/** Connect to the turn's events, after the last one that came. */
function follow(one) {
  if (one !== turn) return;
  const query = one.last ? `?after=${encodeURIComponent(one.last)}` : "";
  const source = new EventSource(`/page/turns/${encodeURIComponent(one.job)}/events${query}`);
  one.source = source;
  for (const kind of TURN_EVENTS) {
    source.addEventListener(kind, (event) => {
      if (event.data === undefined || one !== turn) return; // the connection's own error
      one.tries = 0;
      if (event.lastEventId) one.last = event.lastEventId;
      take(one, kind, JSON.parse(event.data));
    });
  }
  source.onerror = (event) => {
    if (event.data !== undefined) return;
    source.close();
    if (one === turn) comeBack(one);
  };
}

/** The connection is gone: ask for the result, which is all that a worker without events has. */
async function comeBack(one) {
  if (one.tries > 0) say("Connection lost, trying again", "busy");
  await new Promise((resolve) => setTimeout(resolve, pause(one.tries++)));
  const { answer, problem, status } = await call(`/page/turns/${encodeURIComponent(one.job)}`, "GET");
  if (one !== turn) return;
  if (answer?.result) return take(one, "done", answer.result);
  if (answer?.error) return take(one, "error", answer.error);
  if (status === 404) return take(one, "error", { error: problem });
  follow(one);
}

function take(one, kind, data) {
  const atEnd = isAtEnd();
  if (kind === "queued") say(queued(data), "busy");
  if (kind === "start") say("Running", "busy");
  if (kind === "step") say(data.step > 1 ? `Running, step ${data.step}` : "Running", "busy");
  if (kind === "waiting") say(`Waiting: ${words(data.reason)}`, "busy");
  if (kind === "chunk") {
    textOf(one, data.step ?? 0).appendData(data.data);
    $("live").className = "writing";
    say("Writing", "busy");
  }
  if (kind === "retry") {
    textOf(one, data.step ?? 0).data = "";
    say("The answer is asked for again", "busy");
  }
  if (kind === "tool") showTool(one, data);
  if (kind === "done") finish(one, data.result ?? data);
  if (kind === "error") end(data.code === "cancelled" ? "Stopped" : `Failed: ${data.error}`, "failed");
  if (atEnd) scrollToEnd();
}

function textOf(one, step) {
  if (!one.steps.has(step)) {
    const block = document.createElement("div");
    block.className = "text";
    block.dir = "auto";
    const text = document.createTextNode("");
    block.append(text);
    $("live").append(block);
    one.steps.set(step, text);
  }
  $("live").hidden = false;
  return one.steps.get(step);
}

function showTool(one, data) {
  const key = `${data.step}.${data.index}`;
  const name = data.tool ?? data.name ?? "a tool";
  if (!one.tools.has(key)) {
    const line = document.createElement("div");
    $("live").append(line);
    one.tools.set(key, line);
  }
  const line = one.tools.get(key);
  $("live").hidden = false;
  if (data.phase === "result") {
    line.className = data.ok === false ? "tool failed" : "tool";
    const took = typeof data.seconds === "number" ? `, ${data.seconds.toFixed(2)} s` : "";
    line.textContent = `${name} ${data.ok === false ? "failed" : "done"}${took}`;
    say("Running", "busy");
  } else {
    line.className = "tool";
    line.textContent = name;
    say(`Tool: ${name}`, "busy");
  }
}

function queued(data) {
  if (data.reason === "user_limit") return "Queued: as many of the user's turns run as may";
  if (data.ahead) return `Queued, ${data.ahead} before it in this session`;
  return "Queued";
}

async function finish(one, result) {
  const usage = result.usage ?? {};
  const cost = result.cost ?? {};
  const figures = [];
  if (cost.model) figures.push(cost.model);
  if (result.tool_calls) figures.push(`${result.tool_calls} tool call${result.tool_calls > 1 ? "s" : ""}`);
  if (usage.total_tokens !== undefined) {
    figures.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
  }
  figures.push(typeof cost.totalCost === "number" ? `$${cost.totalCost.toFixed(6)}` : "no price known");
  $("figures").textContent = figures.join(" · ");
  // The last step's text is the response; where nothing was streamed, this is the first of it.
  if (typeof result.response === "string") {
    const steps = [...one.steps.keys()];
    textOf(one, steps.length ? Math.max(...steps) : 0).data = result.response;
  }
  await end("Done", "");
}

async function end(text, kind) {
  turn.source?.close();
  turn = null;
  sessionStorage.removeItem(KEPT);
  $("live").className = "";
  $("stop").hidden = true;
  $("send").disabled = $("worker").className !== "ready";
  say(text, kind);
  await refresh(); // the reply is in the thread now
  if (!turn) $("live").hidden = true;
}

async function call(path, method, content) {
  const options = { method, cache: "no-store" };
  if (content) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(content);
  }
  try {
    const answer = await fetch(path, options);
    const parsed = await answer.json();
    if (answer.ok) return { answer: parsed, status: answer.status };
    return { problem: parsed.error, status: answer.status };
  } catch {
    return { problem: "the backend does not answer.", status: 0 };
  }
}

function say(text, kind) {
  $("state").textContent = text;
  $("turn").className = kind;
}

const words = (text) => String(text ?? "").replaceAll("_", " ");

// ---- The person

function fit() {
  const field = $("message");
  field.rows = Math.min(12, Math.max(2, field.value.split("\n").length));
}

$("message").addEventListener("input", fit);
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", async () => {
  if (!turn?.job) return;
  const { problem } = await call(`/page/turns/${encodeURIComponent(turn.job)}`, "DELETE");
  if (problem) say(`Not stopped: ${problem}`, "failed");
});
$("side").addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-decide]");
  if (!button) return;
  button.disabled = true;
  const decision = { user_id: body.dataset.user, status: button.dataset.decide };
  const path = `/page/tool-requests/${encodeURIComponent(button.dataset.request)}`;
  const { problem } = await call(path, "POST", decision);
  if (problem) say(`Not decided: ${problem}`, "failed");
  refresh();
});

showTimes(document);
scrollToEnd();
listen();
const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
if (kept && kept.user === body.dataset.user && kept.task === body.dataset.task) begin(kept);
