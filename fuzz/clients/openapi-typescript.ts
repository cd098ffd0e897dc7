// The tour, by types from openapi-typescript and its openapi-fetch.

import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

const keyward = createClient<paths>({ baseUrl: process.env.KEYWARD_URL! });
const service = { headers: { 'x-api-key': process.env.SERVICE_KEY! } };
const account = { email: 'openapi-typescript@example.com', password: 'Password123!' };

/** What came back, if it is a success. */
function good<T>({ data, error }: { data?: T; error?: unknown }): T {
  assert.ok(data !== undefined, JSON.stringify(error));
  return data;
}

const { user } = good(await keyward.POST('/auth/signup', { body: { ...account, name: 'Ann' } }));
assert.equal(user.email, account.email);

const again = await keyward.POST('/auth/signup', { body: account });
assert.equal(again.error?.statusCode, 409);
const wrong = await keyward.POST('/auth/login', { body: { ...account, password: 'wrong' } });
assert.equal(wrong.error?.message, 'Invalid credentials');

const { accessToken } = good(await keyward.POST('/auth/login', { body: account }));
const asAnn = { headers: { Authorization: `Bearer ${accessToken}` } };
assert.equal(good(await keyward.GET('/auth/me', asAnn)).name, 'Ann');

const wanted = { name: 'ci', expiresAt: '2999-01-01T00:00:00Z', rateLimit: { limit: 100, window: '1m' } };
const created = good(await keyward.POST('/keys/create', { ...asAnn, body: wanted }));
assert.equal(created.rateLimit?.limit, 100);
const keys: components['schemas']['ApiKeyList'] = good(await keyward.GET('/keys', asAnn));
assert.deepEqual(keys.map((key) => key.id), [created.id]);

const used = good(await keyward.GET('/protected/service-only', { headers: { 'x-api-key': created.key } }));
assert.equal(used.user.userId, user.id);

const verify = () => keyward.POST('/keys/verify', { ...service, body: { key: created.key } }).then(good);
assert.equal((await verify()).code, 'VALID');
const form = { headers: { ...service.headers, 'Content-Type': 'application/x-www-form-urlencoded' } };
const introspection = good(await keyward.POST('/oauth/introspect', { ...form, body: { token: accessToken } }));
assert.ok(introspection.active);

good(await keyward.DELETE('/keys/{id}', { ...asAnn, params: { path: { id: created.id } } }));
assert.equal((await verify()).valid, false);
