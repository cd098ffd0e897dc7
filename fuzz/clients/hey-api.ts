// The tour, by the client that @hey-api/openapi-ts makes.

import assert from 'node:assert/strict';
import { client } from './hey-api/client.gen.js';
import * as keyward from './hey-api/index.js';

client.setConfig({ baseUrl: process.env.KEYWARD_URL! });
const account = { email: 'hey-api@example.com', password: 'Password123!' };

/** What came back, if it is a success. */
function good<T>({ data, error }: { data?: T; error?: unknown }): T {
  assert.ok(data !== undefined, JSON.stringify(error));
  return data;
}

const { user } = good(await keyward.signup({ body: { ...account, name: 'Ann' } }));
assert.equal(user.email, account.email);

const again = await keyward.signup({ body: account });
assert.equal(again.error?.statusCode, 409);
const wrong = await keyward.login({ body: { ...account, password: 'wrong' } });
assert.equal(wrong.error?.message, 'Invalid credentials');

const { accessToken } = good(await keyward.login({ body: account }));
// The client chooses the header by the scheme that the document names.
const asAnn = { auth: accessToken };
assert.equal(good(await keyward.getCurrentUser(asAnn)).name, 'Ann');

const wanted = { name: 'ci', expiresAt: '2999-01-01T00:00:00Z', rateLimit: { limit: 100, window: '1m' } };
const created = good(await keyward.createApiKey({ ...asAnn, body: wanted }));
assert.equal(created.rateLimit?.limit, 100);
const keys: keyward.ApiKeyList = good(await keyward.listApiKeys(asAnn));
assert.deepEqual(keys.map((key) => key.id), [created.id]);

const used = good(await keyward.getServiceOnly({ auth: created.key }));
assert.equal(used.user.userId, user.id);

const asService = { auth: ({ type }: { type: string }) => (type === 'apiKey' ? process.env.SERVICE_KEY! : undefined) };
const verify = () => keyward.verifyApiKey({ ...asService, body: { key: created.key } }).then(good);
assert.equal((await verify()).code, 'VALID');
const introspection = good(await keyward.introspectToken({ ...asService, body: { token: accessToken } }));
assert.ok(introspection.active);

good(await keyward.revokeApiKey({ ...asAnn, path: { id: created.id } }));
assert.equal((await verify()).valid, false);
