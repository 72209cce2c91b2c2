// The worker: mark the row, call the upstream, keep its answer, tell who listens.
'use strict';
const { Worker } = require('bullmq');
const Redis = require('ioredis');
const { Pool } = require('undici');
const { connection, queueName, attempts, pool, statement } = require('./common');

const slots = Number(process.env.SLOTS);
const url = new URL(process.env.UPSTREAM_URL);
const path = url.pathname + url.search;
const headers = { 'content-type': 'application/json' };
const upstream = new Pool(url.origin, {
  connections: slots,
  pipelining: 1,
  headersTimeout: 600_000,
  bodyTimeout: 600_000,
});
const events = new Redis(connection);

const start = statement(
  'start',
  "update tasks set state = 'in_progress', attempts = attempts + 1, started_at = now() where id = $1",
);
const complete = statement(
  'complete',
  "update tasks set state = 'completed', result = $2, finished_at = now() where id = $1",
);
const fail = statement('fail', "update tasks set state = 'failed', error = $2, finished_at = now() where id = $1");

const publish = (id, state) => events.publish('tasks', JSON.stringify({ id, state }));

async function call(request) {
  const response = await upstream.request({ path, method: 'POST', headers, body: JSON.stringify(request) });
  const text = await response.body.text();
  if (response.statusCode !== 200) throw new Error(`the upstream answered ${response.statusCode}: ${text}`);
  return text;
}

async function infer(job) {
  const { id, request } = job.data;
  await start([id]);
  let answer;
  try {
    answer = await call(request);
  } catch (error) {
    if (job.attemptsMade + 1 < attempts) throw error;
    await fail([id, error.message]);
    await publish(id, 'failed');
    return;
  }
  await complete([id, answer]);
  await publish(id, 'completed');
}

const worker = new Worker(queueName, infer, { connection, concurrency: slots });
worker.on('error', (error) => console.error(error.message));
worker.waitUntilReady().then(() => console.log('ready'));

const stop = async () => {
  await worker.close();
  await events.quit();
  await pool.end();
  process.exit(0);
};
process.once('SIGTERM', stop).once('SIGINT', stop);
