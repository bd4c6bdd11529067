// Drives unmodified socket.io-client against one or two gateways and checks
// what a person would: usage: node suite.mjs URL_A [URL_B]
// Prints one line a check and exits 1 when one fails.
import { io } from "socket.io-client";

const [urlA, urlB = process.argv[2]] = process.argv.slice(2);
const DEADLINE_MS = Number(process.env.DEADLINE_MS ?? 10_000);
let failed = 0;
const open = [];

const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) =>
      setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS).unref()),
  ]);
const once = (emitter, event, fits = () => true) =>
  within(new Promise((resolve) => {
    emitter.on(event, function seen(...args) {
      if (!fits(...args)) return;
      emitter.off(event, seen);
      resolve(args);
    });
  }), event);
const equal = (found, wanted, what) => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: found ${a}, wanted ${b}`);
};

async function connect(url, options = {}) {
  const socket = io(url, { forceNew: true, reconnection: false, ...options });
  open.push(socket);
  await within(new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  }), "connect");
  return socket;
}
const ask = (socket, ...args) => socket.timeout(DEADLINE_MS).emitWithAck(...args);

async function check(name, run) {
  const started = performance.now();
  try {
    await run();
    console.log(`PASS ${name} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.message}`);
  } finally {
    for (const socket of open.splice(0)) socket.disconnect();
  }
}

const kinds = [["websocket"], ["polling"], ["polling", "websocket"]];
for (const transports of kinds) {
  const kind = transports.join("+");
  await check(`${kind}: echo with ack, text and binary`, async () => {
    const socket = await connect(urlA, { transports });
    equal(await ask(socket, "echo", "a", { b: [1, null, "ü\u2028"] }), "a", "first argument");
    const bytes = await ask(socket, "echo", Buffer.from([0, 1, 255]));
    equal([...new Uint8Array(bytes)], [0, 1, 255], "binary");
  });
  await check(`${kind}: a message crosses from one gateway to the other, both ways`, async () => {
    const [a, b] = await Promise.all([connect(urlA, { transports }), connect(urlB, { transports })]);
    const room = `room-${kind}-${Math.random()}`;
    equal(await ask(a, "joinRoom", room), { ok: true }, "join");
    equal(await ask(b, "joinRoom", room), { ok: true }, "join");
    for (const [from, to] of [[a, b], [b, a]]) {
      const arrived = once(to, "message");
      equal(await ask(from, "sendMessage", room, { text: "hi", n: [1, 2] }), { ok: true }, "publish");
      equal(await arrived, [{ text: "hi", n: [1, 2] }], "message");
    }
    // b gets its own copy of what it sent before, maybe later than the ack.
    const binary = once(b, "message", (message) => message.roomId === room);
    await ask(a, "sendMessage", { roomId: room, file: Buffer.from([1, 2, 3]) });
    const [message] = await binary;
    equal([message.roomId, [...new Uint8Array(message.file)]], [room, [1, 2, 3]], "binary message");
  });
  await check(`${kind}: 200 messages arrive in order, none after leaving`, async () => {
    const [a, b] = await Promise.all([connect(urlA, { transports }), connect(urlB, { transports })]);
    const room = `order-${kind}-${Math.random()}`;
    await ask(b, "joinRoom", room);
    const seen = [];
    const all = new Promise((resolve) => b.on("message", (n) => { seen.push(n); if (n === 199) resolve(); }));
    for (let n = 0; n < 200; n += 1) a.emit("sendMessage", room, n);
    await within(all, "all messages");
    equal(seen, [...Array(200).keys()], "order");
    equal(await ask(b, "leaveRoom", room), { ok: true }, "leave");
    await ask(a, "sendMessage", room, "late");
    await ask(b, "echo", "barrier");
    equal(seen.length, 200, "messages after leaving");
  });
}

await check("the client upgrades from polling to websocket by itself", async () => {
  const socket = await connect(urlA);
  await within(new Promise((resolve) => {
    const look = () => (socket.io.engine.transport.name === "websocket" ? resolve() : socket.io.engine.once("upgrade", look));
    look();
  }), "upgrade");
  equal(await ask(socket, "echo", 1), 1, "echo after upgrade");
});

await check("an unknown namespace is refused and the connection stays", async () => {
  const socket = io(`${urlA}/nowhere`, { forceNew: true, reconnection: false, transports: ["websocket"] });
  open.push(socket);
  const [error] = await once(socket, "connect_error");
  equal(error.message, "Invalid namespace", "message");
});

await check("a volatile event and one without route do no harm", async () => {
  const socket = await connect(urlA);
  socket.volatile.emit("nothing", 1);
  equal(await ask(socket, "echo", "still here"), "still here", "echo");
});

await check("joining without a room is refused with a reason", async () => {
  const socket = await connect(urlA);
  const answer = await ask(socket, "joinRoom", { no: "room" });
  equal([answer.ok, answer.code, answer.retryable], [false, "denied", false], "answer");
});

console.log(failed === 0 ? "all checks passed" : `${failed} checks failed`);
process.exit(failed === 0 ? 0 : 1);
