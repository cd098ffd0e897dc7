// jose and openid-client find and verify the tokens that are in the environment (see tokens.sh).
import assert from 'node:assert/strict'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as client from 'openid-client'

const { ALGORITHM, ISSUER, AUDIENCE, ACCESS, DERIVED, KEY, SECRET } = process.env

// jose: from the issuer to the key set, and from there to the claims.
const metadata = await (await fetch(`${ISSUER}/.well-known/openid-configuration`)).json()
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
const expected = { issuer: ISSUER, audience: AUDIENCE, algorithms: [ALGORITHM] }
const user = await jwtVerify(ACCESS, keys, { ...expected, typ: 'at+jwt' })
assert.equal(user.payload.email, 'ann@example.com')
assert.equal(user.payload.email_verified, false)
assert.equal(typeof user.payload.scope, 'string')
assert.equal(typeof user.payload.gen, 'number')
const service = await jwtVerify(DERIVED, keys, { ...expected, typ: 'key+jwt' })
assert.equal(service.payload.sub, service.payload.key)
assert.equal(service.payload.owner, user.payload.sub)
assert.equal(service.payload.scope, 'orders:read')
await assert.rejects(jwtVerify(DERIVED, keys, { ...expected, typ: 'at+jwt' }))
await assert.rejects(jwtVerify(ACCESS, keys, { ...expected, issuer: `${ISSUER}/` }))
await assert.rejects(jwtVerify(ACCESS, keys, { ...expected, algorithms: ['HS256'] }))
const [header, payload] = ACCESS.split('.')
await assert.rejects(jwtVerify(`${header}.${payload}.${DERIVED.split('.')[2]}`, keys, expected))
console.log('jose: ok')

// openid-client: both documents, and introspection with every way in which it sends a secret.
for (const algorithm of ['oidc', 'oauth2']) {
  for (const how of [client.ClientSecretBasic, client.ClientSecretPost]) {
    const config = await client.discovery(new URL(ISSUER), 'any client', undefined, how(SECRET), { algorithm })
    assert.equal(config.serverMetadata().jwks_uri, `${ISSUER}/.well-known/jwks.json`)
    const session = await client.tokenIntrospection(config, ACCESS)
    assert.deepEqual([session.active, session.sub, session.iss], [true, user.payload.sub, ISSUER])
    assert.equal((await client.tokenIntrospection(config, DERIVED)).scope, 'orders:read')
    assert.equal((await client.tokenIntrospection(config, KEY)).token_type, 'ApiKey')
    assert.deepEqual(await client.tokenIntrospection(config, 'nonsense'), { active: false })
    const stranger = await client.discovery(new URL(ISSUER), 'any client', undefined, how('guessed'), { algorithm })
    await assert.rejects(client.tokenIntrospection(stranger, ACCESS))
  }
}
console.log('openid-client: ok')
