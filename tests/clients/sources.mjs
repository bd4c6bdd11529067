// Connects stock clients with default options from many source addresses and
// tells which gateway each reached (the session id's first four characters are
// the gateway's number). usage: node sources.mjs URL CONNECTS_PER_ADDRESS ADDRESS...
// Prints one JSON object: {connected, errors: [...], gateways: {address: [number, ...]}}
import { Agent } from "node:http";
import { io } from "socket.io-client";

const [url, repeats, ...addresses] = process.argv.slice(2);
const DEADLINE_MS = 20_000;
const result = { connected: 0, errors: [], gateways: {} };

async function connect(address) {
  const socket = io(url, { forceNew: true, reconnection: false, agent: new Agent({ localAddress: address }) });
  try {
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms`)), DEADLINE_MS).unref();
      socket.once("connect", resolve);
      socket.once("connect_error", reject);
      socket.io.engine?.once("close", (reason, details) => reject(new Error(`closed: ${reason} ${details?.message ?? ""}`)));
    });
    // Polls, posts and the upgrade must all have reached the session.
    const answer = await socket.timeout(DEADLINE_MS).emitWithAck("echo", address);
    if (answer !== address) throw new Error(`echo answered ${answer}`);
    result.connected += 1;
    (result.gateways[address] ??= []).push(socket.io.engine.id.slice(0, 4));
  } catch (error) {
    result.errors.push(`${address}: ${error.message} ${error.context?.responseText ?? ""}`.trim());
  } finally {
    socket.disconnect();
  }
}

for (let round = 0; round < Number(repeats); round += 1) {
  await Promise.all(addresses.map(connect));
}
console.log(JSON.stringify(result));
process.exit(0);
