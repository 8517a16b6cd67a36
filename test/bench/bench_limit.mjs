// The commit limit: single-row UPDATEs, each its own flushed transaction, on rows that do not collide.
import { Database, pgbench } from './harness.mjs';

const update = 'UPDATE counters SET n = n + 1 WHERE id = :client_id + 1;';

export class CommitLimit {
  static async prepare() {
    const limit = new CommitLimit();
    limit.database = await Database.create('limit', { extension: false });
    await limit.database.query('CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50)');
    await limit.database.query('INSERT INTO counters SELECT i, 0 FROM generate_series(1, 8) i');
    return limit;
  }
  measure(clients, seconds) {
    return pgbench(this.database.name, update, { clients, seconds });
  }
  drop() {
    return this.database.drop();
  }
}

export default async function limit(bench) {
  const commits = await CommitLimit.prepare();
  for (const clients of [1, 8]) {
    const samples = [];
    await bench.repeat(async () => samples.push(await commits.measure(clients, bench.size(3))));
    bench.figure(`commit_limit_${clients}`, 'commits/s', samples);
  }
  await commits.drop();
}
