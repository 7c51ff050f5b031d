// A reader of server-sent events that comes back: what an EventSource does, with fetch. Reads a session until a turn
// that is named is over, and says which events it got, and what they said.
const { url, until } = JSON.parse(process.argv[2]);

const seen = [];
let [last, text, lost] = ["0", "", 0];

function read(event) {
    if (!event.data || event.id === undefined) return;
    last = event.id;
    const { seq, type, turn_id, data } = JSON.parse(event.data);
    seen.push(seq);
    if (type === "message.delta" && data.kind === "text") text += data.delta;
    return type === "turn.finished" && turn_id === until;
}

async function follow() {
    const answer = await fetch(`${url}/events`, { headers: { accept: "text/event-stream", "last-event-id": last } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    let [buffer, event] = ["", {}];
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
        const lines = (buffer + piece).split("\n");
        buffer = lines.pop();
        for (const line of lines) {
            if (line === "") {
                // Only an empty line makes it an event: what was cut off in the middle does not count.
                if (read(event)) return true;
                event = {};
            } else {
                const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
                event[name] = value;
            }
        }
    }
    return false;
}

for (;;) {
    try {
        if (await follow()) break;
    } catch {}
    lost += 1;
}
console.log(JSON.stringify({ seen, text, lost }));
process.exit(0);
