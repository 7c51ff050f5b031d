// Sends a webhook as GitHub does: the signature is over the bytes of the body.
// Usage: SECRET=… node send.mjs http://127.0.0.1:4910/webhooks/github payload.json
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const [url, file] = process.argv.slice(2);
const body = readFileSync(file);
const signature = createHmac("sha256", process.env.SECRET).update(body).digest("hex");
const answer = await fetch(url, {
  method: "POST",
  headers: {
    "content-type": "application/json",
    "x-github-event": "issue_comment",
    "x-github-delivery": process.env.DELIVERY ?? randomUUID(),
    "x-hub-signature-256": `sha256=${signature}`,
  },
  body,
});
console.log(answer.status, await answer.text());
process.exit(answer.ok ? 0 : 1);
