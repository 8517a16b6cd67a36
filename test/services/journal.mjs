// What a stand-in accepted and refused, in order; the tests compare it with the database. Also appended to a file, so that it
// outlives the process.
import { appendFileSync } from 'node:fs';
import { createHash } from 'node:crypto';

export class Journal {
  constructor(file) {
    this.file = file;
    this.entries = [];
  }

  add(entry) {
    const full = { at: new Date().toISOString(), ...entry };
    this.entries.push(full);
    if (this.file) appendFileSync(this.file, JSON.stringify(full) + '\n');
    return full;
  }

  /** Accepted requests of one operation. */
  accepted(operation) {
    return this.entries.filter((e) => e.operation === operation && e.status < 400);
  }

  /** Requests that broke the description, whatever was answered. */
  invalid() {
    return this.entries.filter((e) => e.errors?.length);
  }
}

/** Tells credentials apart without keeping them. */
export function fingerprint(secret) {
  return secret ? createHash('sha256').update(secret).digest('hex').slice(0, 12) : null;
}
