// The page of examples/browser in a browser of its own: types messages, and says what the page shows when the last of
// them is answered.
import { chromium } from "playwright-core";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { page: url, messages, until } = JSON.parse(process.argv[2]);
const flags = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];
const browser = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "browser-")), {
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: flags,
});
try {
    const page = await browser.newPage();
    const faults = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.goto(url);
    for (const text of messages) {
        await page.fill("#text", text);
        await page.click("text=Send");
    }
    const all = (kind) => [...document.querySelectorAll(`#log .${kind}`)].map((element) => element.textContent);
    const isThere = (until) => document.querySelector("#log")?.lastElementChild?.textContent === until;
    await page.waitForFunction(isThere, until, { timeout: 0, polling: 100 });
    const shown = {};
    for (const kind of ["user", "assistant", "fault"]) shown[kind] = await page.evaluate(all, kind);
    console.log(JSON.stringify({ ...shown, title: await page.title(), faults }));
} finally {
    await browser.close();
}
