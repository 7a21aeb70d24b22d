// Agent turns over HTTP from Node 18 or newer, without dependencies.
//
//   node client.mjs wait   "Hello"     send, and wait for the reply in the same request
//   node client.mjs poll   "Hello"     send, and ask for the result until it is there
//   node client.mjs stream "Hello"     send, and print the text as the model writes it
//   node client.mjs verify SECRET "$X_CLASPER_SIGNATURE" < body     check a webhook's signature
//
// Reads AGENT_DAEMON_URL (http://127.0.0.1:8081) and AGENT_DAEMON_API_KEY.

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";

const BASE = process.env.AGENT_DAEMON_URL ?? "http://127.0.0.1:8081";
const HEADERS = { "X-Agent-Daemon-Key": process.env.AGENT_DAEMON_API_KEY ?? "" };
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** One call; throws the shim's own error. */
async function call(method, path, body) {
  const answer = await fetch(BASE + path, {
    method,
    headers: { ...HEADERS, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const parsed = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status} ${parsed.code}: ${parsed.error}`);
  return parsed;
}

/** Enqueue a turn. Under its idempotency key it is one turn, however often this is called. */
export function send(message, { wait = 0, key = randomUUID() } = {}) {
  return call("POST", `/api/agents/send?wait=${wait}`, {
    user_id: "u1", // the tenant's user, by your own sign-in
    agent_role: "writer",
    message,
    task_title: "Examples", // the Mission Control task that the reply is posted to
    stream: true,
    idempotency_key: key,
  });
}

/** Ask until the turn has ended: where neither streams nor webhooks are possible. */
export async function poll(jobId) {
  for (let pause = 0.2; ; pause = Math.min(2 * pause, 5)) {
    const job = await call("GET", `/api/jobs/${jobId}`);
    if (job.result) return job.result;
    if (job.error) throw new Error(`${job.error.code}: ${job.error.error}`);
    await sleep(pause);
  }
}

/** A turn's events up to `done`. A connection that breaks is made again, after the last event. */
export async function* follow(jobId) {
  let last = "";
  for (let failures = 0; ; failures++) {
    if (failures) await sleep(Math.min(0.2 * 2 ** failures, 5));
    try {
      const headers = last ? { ...HEADERS, "Last-Event-ID": last } : HEADERS;
      const answer = await fetch(`${BASE}/api/jobs/${jobId}/events`, { headers });
      if (answer.status === 503) continue; // the shim or its Redis starts again
      if (!answer.ok) throw new Refused(`${answer.status}: ${await answer.text()}`);
      for await (const event of events(answer.body)) {
        last = event.id;
        failures = 0;
        yield event.data;
        if (event.data.type === "done") return;
        if (event.data.type === "error") throw new Refused(event.data.error);
      }
    } catch (problem) {
      if (problem instanceof Refused) throw problem; // anything else: the network
    }
  }
}
class Refused extends Error {}

/** Server-sent events out of a stream of bytes: blocks of lines, each ended by a blank line. */
async function* events(body) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of body) {
    const blocks = (text + decoder.decode(bytes, { stream: true })).split(/\r?\n\r?\n/);
    text = blocks.pop(); // not whole yet; where the connection breaks, it comes again
    for (const block of blocks) {
      const fields = Object.fromEntries(
        block.split(/\r?\n/).map((line) => [line.split(":", 1)[0], line.replace(/^[^:]*: ?/, "")]),
      );
      if (fields.data) yield { id: fields.id, data: JSON.parse(fields.data) };
    }
  }
}

/** Whether a webhook is from whoever knows the secret, and not an old one sent again. */
export function verify(secret, body, header, tolerance = 300) {
  const parts = (header ?? "").split(",").map((part) => part.trim().split("="));
  const time = parts.find(([name]) => name === "t")?.[1] ?? "";
  if (!/^\d{1,14}$/.test(time) || Math.abs(Date.now() / 1000 - Number(time)) > tolerance) return false;
  // Over the body as it came, before it is parsed.
  const expected = createHmac("sha256", secret).update(`${time}.`).update(body).digest();
  return parts
    .filter(([name]) => name === "v1")
    .map(([, hex]) => Buffer.from(hex ?? "", "hex"))
    .some((given) => given.length === expected.length && timingSafeEqual(given, expected));
}

const [command, ...rest] = process.argv.slice(2);
if (command === "wait") {
  console.log((await send(rest[0], { wait: 60 })).response);
} else if (command === "poll") {
  console.log((await poll((await send(rest[0])).job_id)).response);
} else if (command === "stream") {
  for await (const event of follow((await send(rest[0])).job_id)) {
    if (event.type === "chunk") process.stdout.write(event.data);
    if (event.type === "tool") console.error(`[${event.tool}: ${event.phase}]`);
    if (event.type === "retry") process.stdout.write("\n[what came of this step is void]\n");
    if (event.type === "done") process.stdout.write("\n");
  }
} else if (command === "verify") {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const isGood = verify(rest[0], Buffer.concat(chunks), rest[1]);
  console.log(isGood ? "good" : "bad");
  process.exitCode = isGood ? 0 : 1;
} else {
  console.error("usage: node client.mjs wait|poll|stream MESSAGE, or verify SECRET HEADER < body");
  process.exitCode = 2;
}
