// Sends a message with the library of Standard Webhooks from npm. Usage: URL SECRET ID SENDER
import { Webhook } from "standardwebhooks";

const [url, secret, id, sender] = process.argv.slice(2);
const body = JSON.stringify({ text: "hello, wörld", sender });
const at = new Date();
const answer = await fetch(url, {
  method: "POST",
  headers: {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
    "webhook-signature": new Webhook(secret).sign(id, at, body),
  },
  body,
});
console.log(answer.status, await answer.text());
