// Sends an event with the library by which GitHub signs. Usage: URL SECRET FILE
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { sign } from "@octokit/webhooks-methods";

const [url, secret, file] = process.argv.slice(2);
const body = readFileSync(file, "utf8");
const answer = await fetch(url, {
  method: "POST",
  headers: {
    "content-type": "application/json",
    "x-github-event": "issue_comment",
    "x-github-delivery": randomUUID(),
    "x-hub-signature-256": await sign(secret, body),
  },
  body,
});
console.log(answer.status, await answer.text());
