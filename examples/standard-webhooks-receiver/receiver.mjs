// A receiver of Greenroom's webhooks with the official library: npm install standardwebhooks
//
//   SECRET=whsec_… node receiver.mjs [PORT] [COUNT]
//
// Prints one line for each event, once, whatever comes twice; ends after COUNT of them.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SECRET ?? process.argv[4]);
const [port, count] = [Number(process.argv[2] ?? 8000), Number(process.argv[3] ?? Infinity)];
const seen = new Set(); // a real receiver keeps these, for as long as deliveries may be sent again

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    // The raw body: whoever parses first and signs what was printed again signs something else.
    event = webhook.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
  } catch (error) {
    console.error(`refused: ${error.message}`);
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    seen.add(id);
    console.log(JSON.stringify({ id, type: event.type, session: event.data.session, seq: event.data.seq }));
  }
  response.writeHead(204).end();
  if (seen.size >= count) server.close();
});
server.listen(port, "127.0.0.1");
