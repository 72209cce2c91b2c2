// The API: one committed row, one job, one 202. Two processes share the port.
'use strict';
const cluster = require('node:cluster');
const { randomUUID } = require('node:crypto');

if (cluster.isPrimary) lead(2);
else serve();

function lead(processes) {
  for (let i = 0; i < processes; i++) cluster.fork();
  const stop = () => {
    for (const child of Object.values(cluster.workers)) child.process.kill('SIGTERM');
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
  cluster.on('exit', () => {
    if (Object.keys(cluster.workers).length === 0) process.exit(0);
  });
}

function serve() {
  const { Queue } = require('bullmq');
  const { connection, queueName, attempts, pool, statement } = require('./common');

  const insert = statement('insert', 'insert into tasks (id, model, request) values ($1, $2, $3)');
  const select = statement(
    'select',
    `select id, state, model, request, result, error, attempts, created_at, started_at, finished_at
     from tasks where id = $1`,
  );
  const queue = new Queue(queueName, {
    connection,
    defaultJobOptions: {
      attempts,
      backoff: { type: 'exponential', delay: 1000 },
      removeOnComplete: true,
      removeOnFail: true,
    },
  });
  queue.on('error', (error) => console.error(error.message));

  const app = require('fastify')({ keepAliveTimeout: 75_000, forceCloseConnections: 'idle' });

  // Fields that are not named here are the upstream's business and go there untouched.
  const body = {
    type: 'object',
    required: ['model', 'messages'],
    properties: {
      model: { type: 'string' },
      max_tokens: { type: 'integer' },
      messages: {
        type: 'array',
        items: {
          type: 'object',
          required: ['role', 'content'],
          properties: { role: { type: 'string' }, content: { type: 'string' } },
        },
      },
    },
  };
  const params = { type: 'object', properties: { id: { type: 'string', format: 'uuid' } } };
  const accepted = { type: 'object', properties: { id: { type: 'string' }, state: { type: 'string' } } };

  app.post('/tasks', { schema: { body, response: { 202: accepted } } }, async (request, reply) => {
    const id = randomUUID();
    await insert([id, request.body.model, request.body]);
    await queue.add('infer', { id, request: request.body });
    return reply.code(202).send({ id, state: 'queued' });
  });

  app.get('/tasks/:id', { schema: { params } }, async (request, reply) => {
    const { rows } = await select([request.params.id]);
    if (rows.length === 0) return reply.code(404).send({ error: 'there is no such task' });
    return rows[0];
  });

  app.get('/healthz', async () => '');

  app.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 });

  const stop = async () => {
    await app.close();
    await queue.close();
    await pool.end();
    process.exit(0);
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
}
