// Adds a job all the time, and says on a line what became of each; the worker writes down which jobs it did.
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const nodes = process.env.NODES.split(" ");
const password = process.env.PASSWORD;

// guide: begin
const connection = {
  sentinels: nodes.map((host) => ({ host, port: 26379 })),
  name: "cache",
  username: "app",
  password,
  socketTimeout: 20000, // a machine that is lost closes no connection; a worker waits 10 s for jobs
  sentinelCommandTimeout: 2000,
  maxRetriesPerRequest: null, // as BullMQ wants it of a worker
};
const queue = new Queue("mail", { connection });
const worker = new Worker("mail", async (job) => send(job.data), { connection });
for (const one of [queue, worker]) one.on("error", failed);
await queue.add("greeting", { to: "you" });
// guide: end

const redis = new Redis(connection);
redis.on("error", failed);

async function send(data) {
  if (data.n) await redis.sadd(data.key, data.n);
}

function say(what) {
  console.log(JSON.stringify({ at: performance.now(), ...what }));
}

function failed(error) {
  say({ error: error.name, message: error.message });
}

for (let n = 1; ; n++) {
  try {
    await queue.add("numbered", { n, key: process.env.KEY }, { removeOnComplete: true, attempts: 20, backoff: 200 });
    say({ acked: n });
  } catch (error) {
    failed(error);
  }
  await new Promise((done) => setTimeout(done, 50));
}
