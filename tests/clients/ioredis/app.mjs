// Writes all the time, and says on a line what became of each write.
import { Redis } from "ioredis";

const nodes = process.env.NODES.split(" ");
const password = process.env.PASSWORD;

// guide: begin
const redis = new Redis({
  sentinels: nodes.map((host) => ({ host, port: 26379 })),
  name: "cache",
  username: "app",
  password,
  socketTimeout: 5000, // a machine that is lost closes no connection,
  sentinelCommandTimeout: 2000, // nor does it answer who is master
});
redis.on("error", (error) => failed(error)); // or ioredis prints it
await redis.set("greeting", "hello");
// guide: end

function say(what) {
  console.log(JSON.stringify({ at: performance.now(), ...what }));
}

function failed(error) {
  say({ error: error.name, message: error.message });
}

for (let n = 1; ; n++) {
  try {
    await redis.sadd(process.env.KEY, n);
    say({ acked: n });
  } catch (error) {
    failed(error);
  }
  await new Promise((done) => setTimeout(done, 50));
}
