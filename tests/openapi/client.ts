// A client made from the description, in the types that a generator gives it: it must compile and complete a turn.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

const baseUrl = process.argv[2];
const token = process.argv[3];
const headers = token ? { authorization: `Bearer ${token}` } : {};
const client = createClient<paths, "application/json">({ baseUrl, headers });

function check(fact: boolean, what: string): asserts fact {
  if (!fact) throw new Error(what);
}

const path = { key: "ts:client" };
const sent = await client.POST("/v1/sessions/{key}/messages", {
  params: { path, query: { wait: 60 } },
  body: { text: "Hello from TypeScript", policy: "enqueue" },
});
check(sent.data !== undefined && "response" in sent.data, `no answer: ${JSON.stringify(sent.error)}`);
const finished: components["schemas"]["FinishedTurn"] = sent.data;
check(finished.turn.state === "completed", finished.turn.state);
check(finished.response === "Hello from TypeScript", finished.response);

const log = await client.GET("/v1/sessions/{key}/events", {
  params: { path, query: { after: 0, types: ["turn.", "message."] } },
  headers: { accept: "application/json" },
});
check(log.data !== undefined, JSON.stringify(log.error));
let text = "";
let state: components["schemas"]["TurnState"] | undefined;
for (const event of log.data.data) {
  // The type of `data` follows from `type`.
  if (event.type === "message.delta" && event.data.kind === "text") text += event.data.delta;
  if (event.type === "turn.finished") state = event.data.state;
}
check(text === "Hello from TypeScript" && state === "completed", `${text} ${state}`);

const snapshot = await client.GET("/v1/sessions/{key}", { params: { path } });
const session: components["schemas"]["Snapshot"] | undefined = snapshot.data;
check(session?.key === "ts:client" && session.current_turn === null, JSON.stringify(snapshot));

const missing = await client.GET("/v1/sessions/{key}", { params: { path: { key: "ts:none" } } });
check(missing.error?.error.code === "session_not_found", JSON.stringify(missing.error));

// Mistakes do not compile.
export const mistakes = [
  // @ts-expect-error a title that is no text
  () => client.POST("/v1/sessions", { body: { title: 5 } }),
  // @ts-expect-error a policy that there is not
  () => client.POST("/v1/sessions/{key}/messages", { params: { path }, body: { text: "x", policy: "later" } }),
  // @ts-expect-error a path without its key
  () => client.GET("/v1/sessions/{key}", { params: { path: {} } }),
];

console.log("completed");
