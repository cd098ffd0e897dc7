"""PyJWT and Authlib find and verify the tokens that are in the environment (see tokens.sh)."""

import os
import ssl

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.jose.errors import JoseError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url

ALGORITHM, ISSUER, AUDIENCE, ACCESS, DERIVED, KEY, SECRET = (
    os.environ[name] for name in ("ALGORITHM", "ISSUER", "AUDIENCE", "ACCESS", "DERIVED", "KEY", "SECRET")
)


def refused(faults, act):
    """That it raises one of these."""
    try:
        act()
    except faults:
        return
    raise AssertionError("nothing was refused")


# PyJWT: from the key set to the claims.
metadata = requests.get(get_well_known_url(ISSUER, external=True), timeout=10).json()
keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=ssl.create_default_context())


def decoded(token, algorithm=ALGORITHM, issuer=ISSUER):
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=[algorithm],
        issuer=issuer,
        audience=AUDIENCE,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
    )


user, service = decoded(ACCESS), decoded(DERIVED)
assert (user["email"], user["email_verified"]) == ("ann@example.com", False)
assert (service["owner"], service["scope"]) == (user["sub"], "orders:read")
assert jwt.get_unverified_header(ACCESS)["typ"] == "at+jwt"
header, payload, _ = ACCESS.split(".")
refused(jwt.InvalidTokenError, lambda: decoded(f"{header}.{payload}.{DERIVED.split('.')[2]}"))
refused(jwt.InvalidTokenError, lambda: decoded(ACCESS, issuer=ISSUER + "/"))
refused(jwt.InvalidTokenError, lambda: decoded(ACCESS, algorithm="HS256"))
print("PyJWT: ok")

# Authlib: its rules for both documents, but for the endpoints of grants that Keyward does not have, and for RS256 where
# another algorithm signs; the claims; and introspection with every way in which it sends a secret.
absent = {"authorization_endpoint", "token_endpoint"}
exempt = absent if ALGORITHM == "RS256" else absent | {"id_token_signing_alg_values_supported"}
for kind, path in (
    (OpenIDProviderMetadata, "openid-configuration"),
    (AuthorizationServerMetadata, "oauth-authorization-server"),
):
    document = kind(requests.get(f"{ISSUER}/.well-known/{path}", timeout=10).json())
    for name in kind.REGISTRY_KEYS:
        if name not in exempt:
            getattr(document, f"validate_{name}")()
    assert document.issuer == ISSUER and not absent & document.keys()

key_set = JsonWebKey.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())
options = {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": AUDIENCE}}
claims = JsonWebToken([ALGORITHM]).decode(ACCESS, key_set, claims_options=options)
claims.validate()
assert claims["sub"] == user["sub"]
refused(JoseError, lambda: JsonWebToken([ALGORITHM]).decode(f"{header}.{payload}.{'A' * 86}", key_set))
refused(JoseError, lambda: JsonWebToken(["HS256"]).decode(ACCESS, key_set))

for method in ("client_secret_basic", "client_secret_post"):
    session = OAuth2Session("any client", SECRET, token_endpoint_auth_method=method)
    endpoint = metadata["introspection_endpoint"]
    said = session.introspect_token(endpoint, token=ACCESS, token_type_hint="access_token").json()
    assert (said["active"], said["sub"]) == (True, user["sub"]), said
    assert session.introspect_token(endpoint, token=KEY).json()["scope"] == "orders:read"
    stranger = OAuth2Session("any client", "guessed", token_endpoint_auth_method=method)
    assert stranger.introspect_token(endpoint, token=ACCESS).status_code == 401
print("Authlib: ok")
