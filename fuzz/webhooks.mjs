// Verifies what Keyward has delivered by npm's standardwebhooks. fuzz/webhooks.sh runs it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Webhook, WebhookVerificationError } from 'standardwebhooks';

function accepts(secret, { headers, body }) {
  try {
    assert.deepEqual(new Webhook(secret).verify(body, headers), JSON.parse(body));
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

const { OLD, NEW } = process.env;
const other = `whsec_${'A'.repeat(43)}=`;
const lines = readFileSync(process.argv[2], 'utf8').trimEnd().split('\n');
const [before, during] = lines.map((line) => JSON.parse(line));
assert(accepts(OLD, before) && !accepts(NEW, before));
assert(accepts(OLD, during) && accepts(NEW, during));
for (const delivery of [before, during]) {
  const { headers, body } = delivery;
  assert.equal(JSON.parse(body).type, 'key.created');
  assert(!accepts(other, delivery));
  assert(!accepts(OLD, { headers, body: body.replace('key.created', 'key.deleted') }));
  for (const name of ['webhook-id', 'webhook-timestamp']) {
    const value = headers[name].slice(0, -1) + (headers[name].endsWith('0') ? '1' : '0');
    assert(!accepts(OLD, { headers: { ...headers, [name]: value }, body }));
  }
}
console.log('standardwebhooks (npm): accepted, and refused what was altered');
