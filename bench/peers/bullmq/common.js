// What the API and the worker agree on: where things are, and the queue between them.
'use strict';
const { Pool } = require('pg');

const redis = new URL(process.env.REDIS_URL);
exports.connection = {
  host: redis.hostname,
  port: Number(redis.port || 6379),
  maxRetriesPerRequest: null,
};
exports.queueName = 'tasks';
exports.attempts = 3;

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 16, idleTimeoutMillis: 0 });
exports.pool = pool;

// A named statement is prepared once in each connection.
exports.statement = (name, text) => (values) => pool.query({ name, text, values });
