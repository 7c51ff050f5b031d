// The AG-UI client as an application uses it: one agent, one thread, some runs after each other. Takes what to do as
// JSON, and prints what the agent made of it.
import { HttpAgent } from "@ag-ui/client";

const { url, thread, state, steps, headers } = JSON.parse(process.argv[2]);

// What the client only warns of would be an error to somebody.
const warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));
console.error = () => {};
// The client rejects the run when its connection breaks, as it should, and then trips over the body that broke.
process.on("unhandledRejection", (error) => {
    if (error?.message !== "terminated") throw error;
});

const agent = new HttpAgent({ url, threadId: thread, initialState: state ?? {}, headers });
const runs = [];
for (const step of steps) {
    if (step.say !== undefined) {
        agent.addMessage({ id: step.id ?? crypto.randomUUID(), role: "user", content: step.say });
    }
    const answers = agent.pendingInterrupts.map(({ id }) => ({
        interruptId: id,
        status: step.status ?? "resolved",
        ...(step.payload === undefined ? {} : { payload: step.payload }),
    }));
    const parameters = {
        runId: step.run ?? crypto.randomUUID(),
        forwardedProps: step.props,
        tools: step.tools,
        ...(answers.length > 0 ? { resume: answers } : {}),
    };
    let lost = 0;
    for (;;) {
        const events = [];
        const run = { error: null, events, lost };
        try {
            await agent.runAgent(parameters, { onEvent: ({ event }) => void events.push(event) });
        } catch (error) {
            run.error = { message: error.message, status: error.status ?? null, payload: error.payload ?? null };
        }
        if (run.error === null || run.error.status !== null || !step.again) {
            runs.push({ ...run, messages: agent.messages, state: agent.state, interrupts: agent.pendingInterrupts });
            break;
        }
        lost += 1;
    }
}
console.log(JSON.stringify({ runs, warnings }));
