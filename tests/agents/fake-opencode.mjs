// A scripted stand-in for `opencode serve`: does on demand what the real one does not. A prompt is a JSON list of steps, each
// with one key; `FAKE` is the setup, `FAKE_LOG` a file that gets a line for each call.
import http from "node:http";
import { appendFileSync } from "node:fs";

const setup = JSON.parse(process.env.FAKE ?? "{}");
const log = (entry) => process.env.FAKE_LOG && appendFileSync(process.env.FAKE_LOG, JSON.stringify(entry) + "\n");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const password = process.env.OPENCODE_SERVER_PASSWORD;
log({ started: process.pid, args: process.argv.slice(2), password: Boolean(password) });
if (setup.refuse) {
  console.error(setup.refuse);
  process.exit(3);
}
if (setup.silent) await new Promise(() => setInterval(() => {}, 1000));

const streams = new Set();
const sessions = new Map();
let number = 0;
const id = (prefix) => `${prefix}_${String(Date.now()).padStart(14, "0")}${String(++number).padStart(8, "0")}`;
const known = (key) => {
  if (!sessions.has(key)) sessions.set(key, { messages: [], asks: [], busy: false, aborted: false, children: [] });
  return sessions.get(key);
};
(setup.sessions ?? []).forEach(known);

let muted = false;
const write = (line) => streams.forEach((stream) => stream.write(line));
const emit = (type, properties, event = id("evt")) => {
  if (!muted) write(`data: ${JSON.stringify({ directory: "/", payload: { id: event, type, properties } })}\n\n`);
  return event;
};

async function turn(key, parent, steps) {
  const session = known(key);
  session.busy = true;
  session.aborted = false;
  const status = (type) => emit("session.status", { sessionID: key, status: { type } });
  status("busy");
  let info, parts;
  const open = () => {
    info = { id: parent.replace("msg_", "msg_f") + number++, sessionID: key, role: "assistant", parentID: parent,
      time: { created: 1 }, cost: 0, tokens: { input: 0, output: 0, reasoning: 0, cache: { read: 0, write: 0 } } };
    parts = [];
    session.messages.push({ info, parts });
    emit("message.updated", { sessionID: key, info });
  };
  const close = (finish, error) => {
    Object.assign(info, { time: { created: 1, completed: 2 }, finish, error, cost: 0.25,
      tokens: { total: 18, input: 10, output: 5, reasoning: 0, cache: { read: 3, write: 0 } } });
    emit("message.updated", { sessionID: key, info });
  };
  const part = (fields) => {
    const made = { id: id("prt"), messageID: info.id, sessionID: key, ...fields };
    parts.push(made);
    emit("message.part.updated", { sessionID: key, part: made });
    return made;
  };
  const say = (text, twice, size = 4) => {
    const made = part({ type: "text", text: "", time: { start: 1 } });
    for (const delta of text.match(new RegExp(`.{1,${size}}`, "gsu")) ?? []) {
      const properties = { sessionID: key, messageID: info.id, partID: made.id, field: "text", delta };
      const event = emit("message.part.delta", properties);
      if (twice) emit("message.part.delta", properties, event);
    }
    return () => {
      Object.assign(made, { text, time: { start: 1, end: 2 } });
      emit("message.part.updated", { sessionID: key, part: made });
    };
  };
  const ask = (asked) => {
    session.asks.push(asked);
    emit("permission.asked", asked);
    return new Promise((answered) => (asked.answered = answered));
  };
  const newest = () => session.messages.findLast(({ info }) => info.role === "user").info.id;
  open();
  const left = [...steps];
  while (!session.aborted) {
    if (left.length === 0) {
      // A text that came meanwhile is answered by a message of its own.
      if (parent === newest()) break;
      close("stop");
      parent = newest();
      open();
      left.push(...session.steps);
    }
    const step = left.shift();
    if (!step) break;
    const [name, value] = Object.entries(step)[0];
    if (name === "say") say(value)();
    else if (name === "twice") say(value, true)();
    else if (name === "cut") {
      // The stream breaks in the middle of a part, and what comes meanwhile is never sent.
      const finish = say(value[0]);
      muted = true;
      streams.forEach((stream) => stream.destroy());
      finish();
      parts.at(-1).text = value[0] + value[1];
      await pause(50);
      muted = false;
    } else if (name === "unheard") {
      // All of it is lost, without the stream breaking off.
      muted = true;
      say(value)();
      muted = false;
    } else if (name === "flood") for (let n = 0; n < value; n++) say(`${n} `.padEnd(1000, "x"), false, 1000)();
    else if (name === "garbage") write("data: nonsense\n\ndata: {\"payload\":7}\n\nodd\n\ndata: {}\n\n");
    else if (name === "wait") await pause(value);
    else if (name === "stderr") console.error(value);
    else if (name === "exit") process.exit(value);
    else if (name === "stop") process.kill(process.pid, "SIGSTOP");
    else if (name === "deaf") {
      session.deaf = true;
      await new Promise(() => {});
    } else if (name === "hang") while (!session.aborted) await pause(10);
    else if (name === "tool") {
      // A call that runs until a text has come, or for ever; the model's next call is a message of its own.
      const call = part({ type: "tool", tool: "bash", callID: "call", state: { status: "running", input: { command: "x" } } });
      while (!session.aborted && (value === "for ever" || parent === newest())) await pause(10);
      const error = session.aborted && { status: "error", error: "Tool execution aborted" };
      call.state = { ...call.state, ...(error || { status: "completed", output: "y" }) };
      emit("message.part.updated", { sessionID: key, part: call });
      if (session.aborted) break;
      close("tool-calls");
      parent = newest();
      open();
    } else if (name === "ask") {
      const reply = await ask({ id: id("per"), sessionID: key, permission: value, patterns: ["x"], always: ["x *"],
        metadata: { command: "x" }, tool: { messageID: info.id, callID: "call" } });
      say(`reply:${reply}`)();
    } else if (name === "child") {
      const child = id("ses");
      known(child);
      session.children.push({ id: child });
      emit("session.created", { sessionID: child, info: { id: child, parentID: key } });
      emit("message.updated", { sessionID: child, info: { ...info, id: "msg_child", sessionID: child, parentID: "msg_x" } });
      emit("message.part.updated", { sessionID: child, part: { id: "prt_c", messageID: "msg_child", sessionID: child,
        type: "text", text: "of the child" } });
      const reply = await ask({ id: id("per"), sessionID: child, permission: "edit", patterns: ["y"], metadata: {} });
      say(`child:${reply}`)();
    } else if (name === "retry") {
      for (let attempt = 1; attempt <= value && !session.aborted; attempt++) {
        emit("session.status", { sessionID: key, status: { type: "retry", attempt, message: "too many", next: 0 } });
        await pause(20);
      }
    } else if (name === "early_idle") emit("session.idle", { sessionID: key });
    else if (name === "quiet") muted = true;
    else if (name === "error") emit("session.error", { sessionID: key, error: { name: "UnknownError", data: { message: value } } });
  }
  if (session.aborted) {
    emit("session.error", { sessionID: key, error: { name: "MessageAbortedError", data: { message: "Aborted" } } });
    emit("session.idle", { sessionID: key });
    close(undefined, { name: "MessageAbortedError", data: { message: "Aborted" } });
  } else close("stop");
  session.busy = false;
  status("idle");
  emit("session.idle", { sessionID: key });
  muted = false;
}

const routes = [
  ["GET", /^\/global\/health$/, () => ({ healthy: true })],
  ["GET", /^\/config$/, () => ({ model: "mock/one" })],
  ["GET", /^\/config\/providers$/, () => ({ default: {}, providers: [{ id: "mock", models: { one: { limit: { context: 1000 } }, two: {} } }] })],
  ["GET", /^\/agent$/, () => [{ name: "build", mode: "primary" }, { name: "plan", mode: "primary" }]],
  ["GET", /^\/command$/, () => [{ name: "go" }]],
  ["POST", /^\/session$/, () => { const key = id("ses"); known(key); return { id: key }; }],
  ["GET", /^\/session\/status$/, () => Object.fromEntries([...sessions].filter(([, s]) => s.busy).map(([key]) => [key, { type: "busy" }]))],
  ["GET", /^\/session\/(\w+)$/, (key) => (sessions.has(key) ? { id: key } : undefined)],
  ["GET", /^\/session\/(\w+)\/message$/, (key) => known(key).messages],
  ["GET", /^\/session\/(\w+)\/message\/(\w+)$/, (key, body, message) => known(key).messages.find(({ info }) => info.id === message)],
  ["DELETE", /^\/session\/(\w+)\/message\/(\w+)$/, (key, body, message) => {
    const session = known(key);
    if (session.busy) return undefined;
    session.messages = session.messages.filter(({ info }) => info.id !== message);
    return true;
  }],
  ["GET", /^\/session\/(\w+)\/children$/, (key) => known(key).children],
  ["GET", /^\/permission$/, () => [...sessions.values()].flatMap((session) => session.asks)],
  ["GET", /^\/question$/, () => []],
  ["POST", /^\/session\/(\w+)\/abort$/, (key) => {
    const session = known(key);
    session.aborted = !session.deaf;
    return true;
  }],
  ["POST", /^\/permission\/(\w+)\/reply$/, (ask, body) => {
    for (const session of sessions.values()) {
      const asked = session.asks.find((asked) => asked.id === ask);
      if (!asked) continue;
      session.asks = session.asks.filter((other) => other !== asked);
      emit("permission.replied", { sessionID: asked.sessionID, requestID: ask, reply: body.reply });
      asked.answered(body.reply);
      return true;
    }
  }],
  ["POST", /^\/session\/(\w+)\/(?:prompt_async|command)$/, (key, body) => {
    if (!sessions.has(key)) return undefined;
    const text = body.arguments ?? body.parts.filter((part) => part.type === "text").at(-1).text;
    emit("message.updated", { sessionID: key, info: { id: body.messageID, sessionID: key, role: "user" } });
    const session = known(key);
    const info = { id: body.messageID, sessionID: key, role: "user" };
    session.messages.push({ info, parts: [] });
    session.steps = JSON.parse(text);
    if (!session.busy) turn(key, body.messageID, session.steps);
    return null;
  }],
];

const server = http.createServer((request, response) => {
  const [user, given] = Buffer.from((request.headers.authorization ?? "").split(" ")[1] ?? "", "base64").toString().split(":");
  const url = new URL(request.url, "http://x");
  if (!password || user !== "opencode" || given !== password) return response.writeHead(401).end();
  if (url.pathname === "/global/event") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    streams.add(response);
    response.on("close", () => streams.delete(response));
    log({ connected: streams.size });
    return response.write(`data: {"payload":{"type":"server.connected","properties":{}}}\n\n`);
  }
  let text = "";
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => {
    const body = text ? JSON.parse(text) : undefined;
    log({ method: request.method, path: url.pathname, folder: url.searchParams.get("directory"), body });
    for (const [method, pattern, answer] of routes) {
      const found = method === request.method && pattern.exec(url.pathname);
      if (!found) continue;
      const value = found.length > 1 ? answer(found[1], body, found[2]) : answer(body);
      if (value === undefined) break;
      response.writeHead(value === null ? 204 : 200, { "content-type": "application/json" });
      return response.end(value === null ? undefined : JSON.stringify(value));
    }
    response.writeHead(404).end(JSON.stringify({ name: "NotFoundError", data: { message: "not found" } }));
  });
});
server.listen(0, "127.0.0.1", () => {
  console.log(`some noise\nopencode server listening on http://127.0.0.1:${server.address().port}`);
});
