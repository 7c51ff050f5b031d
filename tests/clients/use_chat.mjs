// Drives a page with useChat in headless Chromium, with a network in between that breaks.
// Usage: node use_chat.mjs URL PORT PAGE PACKAGES VERSION. PORT is where the page is served; its origin may call URL.
import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, readFile, symlink } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const [url, port, source, packages, version] = process.argv.slice(2)
const major = Number(version.split('.')[0])
const target = new URL(url)

const folder = await mkdtemp(path.join(tmpdir(), 'use-chat-'))
await symlink(path.join(packages, 'node_modules'), path.join(folder, 'node_modules'))
await copyFile(source, path.join(folder, 'page.jsx'))
const script = path.join(folder, 'page.js')
await build({
  entryPoints: [path.join(folder, 'page.jsx')],
  outfile: script,
  bundle: true,
  format: 'esm',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  logLevel: 'error',
})
const html = '<!doctype html><meta charset="utf-8"><div id="root"></div><script type="module" src="/page.js"></script>'
const pages = http.createServer(async (request, response) => {
  const isScript = request.url === '/page.js'
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
  response.end(isScript ? await readFile(script) : html)
})
await new Promise((resolve) => pages.listen(Number(port), '127.0.0.1', resolve))

// The network: passes everything on, and while it is bad breaks each stream somewhere in the middle. Other answers get
// through: a message that was never sent has no answer.
let bad = 0
let cuts = 0
const network = net.createServer((client) => {
  const server = net.connect(Number(target.port), target.hostname)
  const close = () => { client.destroy(); server.destroy() }
  for (const socket of [client, server]) socket.on('error', close).on('close', close)
  let isStream = false
  // Behind the head in any case: to Chromium, a head that is cut off by an orderly end is a whole answer without a body.
  let left = 1500 + Math.floor(Math.random() * 9000)
  client.pipe(server)
  server.on('data', (bytes) => {
    isStream ||= bytes.includes('text/event-stream')
    if (cuts >= bad || !isStream) return client.write(bytes)
    client.write(bytes.subarray(0, left))
    left -= bytes.length
    if (left <= 0) {
      cuts++
      // What was written is still sent: the cut is in the middle of the answer, not before it.
      client.end(() => client.resetAndDestroy())
      server.destroy()
    }
  })
})
await new Promise((resolve) => network.listen(0, '127.0.0.1', resolve))
const api = `http://127.0.0.1:${network.address().port}`

const profile = path.join(folder, 'profile')
await mkdir(profile)
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
  ],
})
const page = await browser.newPage()
page.setDefaultTimeout(50_000)
page.on('pageerror', (error) => console.error(`page: ${error}`))
const id = `page:${version}:${process.pid}`
const open = () => page.goto(`http://127.0.0.1:${port}/?${new URLSearchParams({ api, id, version })}`)
const becomes = (status) => page.waitForSelector(`main[data-status=${status}]`, { state: 'attached' })
const say = (text) => page.evaluate((text) => void window.page.chat.sendMessage({ text }), text)
const script_ = (steps) => `/script ${JSON.stringify(steps)}`
const deltas = (count) => Array.from({ length: count }, (_, i) => `${String(i).padStart(6, '0')} `.padEnd(20, 'x')).join('')
/** The chat is at rest, and its last answer is this; or it has failed, where that `may` be. */
const answered = async (wanted, may = false) => {
  const settled = await page.waitForFunction(([wanted, may]) => {
    const { status } = document.querySelector('main').dataset
    const spans = [...document.querySelectorAll('p:last-child.assistant span')]
    const told = spans.map((span) => span.textContent).join('')
    if (status === 'error') return may ? status : Promise.reject(new Error(`an error after ${told.slice(-40)}`))
    return status === 'ready' && told === wanted && status
  }, [wanted, may])
  return settled.jsonValue()
}
const ok = (what) => console.log(`ok ${what}`)

try {
  await open()
  await becomes('ready')
  await say('Grüße, "you"\\ 👋')
  await page.waitForSelector('p.assistant')
  await answered('Grüße, "you"\\ 👋')
  await say(script_({ reasoning: 2, tool: { name: 'bash', input: { a: 1 }, output: 'b' }, deltas: 3 }))
  await page.waitForSelector('i')
  await answered(deltas(3))
  assert.equal(await page.textContent('i'), 'output-available')
  assert.deepEqual(await page.$$eval('p', (all) => all.map((one) => one.className)), ['user', 'assistant', 'user', 'assistant'])
  ok('text and tools')

  await say(script_({ deltas: 120, delay_ms: 15 }))
  await page.waitForFunction(() => document.querySelectorAll('p.assistant').length === 3)
  await open()
  await page.waitForFunction(() => document.querySelector('p.assistant:last-child')?.textContent.length > 0)
  await answered(deltas(120))
  ok('a reload in the middle')

  bad = 8
  await say(script_({ deltas: 400, delay_ms: 10 }))
  while ((await answered(deltas(400), true)) === 'error') {
    // In 7 a resumed stream replaces what there was of the message; before, useChat would append to it (in 6 it does not pass
    // `resumeStreamIsReplay` on), so the chat has to be opened anew.
    if (major >= 7) await page.evaluate(() => window.page.chat.resumeStream())
    else await page.waitForSelector(`main[data-round="${await page.evaluate(() => window.page.reopen())}"]`, { state: 'attached' })
  }
  assert.equal(cuts, bad, 'all that was to break has broken')
  ok(`${cuts} cuts`)

  await say(script_({ text: 'so far', hang: true }))
  await page.waitForFunction(() => document.querySelector('p.assistant:last-child')?.textContent === 'so far')
  const stopped = await fetch(`${url}/v1/sessions/${encodeURIComponent(id)}/abort`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
  })
  assert.equal((await stopped.json()).ok, true)
  await answered('so far')
  ok('stopping')

  if (major >= 6) {
    await say(script_({ ask: 'permission', text: 'done' }))
    const asked = await page.waitForSelector('i[data-id]:text("approval-requested")')
    await becomes('ready')
    const approval = await asked.getAttribute('data-id')
    await page.evaluate((id) => void window.page.chat.addToolApprovalResponse({ id, approved: true }), approval)
    await page.waitForSelector('i:text("output-available")')
    await page.waitForFunction(() => document.querySelector('p.assistant:last-child')?.textContent.includes('done'))
    await answered('permission: allow done')
    ok('an approval')
  }
} catch (error) {
  const told = await page.evaluate(() => document.querySelector('#root').innerHTML)
  const forms = told.replace(/0{3}[0-9x ]{40,}/g, (text) => `(${text.length} characters)`)
  console.error(`${version}, after ${cuts} cuts: ${forms.slice(-2000)}`)
  throw error
} finally {
  await browser.close()
  pages.close()
  network.close()
}
process.exit(0)
