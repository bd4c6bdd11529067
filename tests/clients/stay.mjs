// A stock client that stays: joins a room, reconnects by itself, counts what it
// receives. usage: node stay.mjs URL ROOM; prints one JSON line an event and
// ends when its standard input ends.
import { io } from "socket.io-client";

const [url, room] = process.argv.slice(2);
const socket = io(url, { forceNew: true, reconnectionDelay: 200, reconnectionDelayMax: 1000, transports: ["websocket"] });
const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

socket.on("connect", async () => {
  const answer = await socket.timeout(10_000).emitWithAck("joinRoom", room).catch((error) => ({ error: error.message }));
  tell("joined", { answer });
});
socket.on("disconnect", (reason, details) => tell("disconnect", { reason, code: details?.context?.code ?? details?.description?.code ?? null }));
socket.on("connect_error", (error) => tell("connect_error", { message: error.message }));
socket.on("message", (message) => tell("message", { message }));
process.stdin.on("end", () => process.exit(0)).resume();
