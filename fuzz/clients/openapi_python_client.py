"""The tour, by the client that openapi-python-client makes."""

import datetime
import os
from typing import TypeVar

from keyward_client import AuthenticatedClient, Client
from keyward_client.api.api_keys import create_api_key, list_api_keys, revoke_api_key, verify_api_key
from keyward_client.api.auth import get_current_user, login, signup
from keyward_client.api.gateways import introspect_token
from keyward_client.api.protected import get_service_only
from keyward_client.models import (
    ApiKey,
    AuthResult,
    CreateApiKeyRequest,
    CreatedApiKey,
    Error,
    Introspection,
    IntrospectionRequest,
    KeyRevoked,
    KeyVerification,
    KeyVerificationCode,
    LoginRequest,
    Profile,
    RateLimit,
    ServiceAccess,
    SignupRequest,
    VerifyApiKeyRequest,
)

URL = os.environ["KEYWARD_URL"]
EMAIL, PASSWORD = "openapi-python-client@example.com", "Password123!"

T = TypeVar("T")


def a(expected: type[T], answer: object) -> T:
    assert isinstance(answer, expected), answer
    return answer


def with_key(key: str) -> AuthenticatedClient:
    return AuthenticatedClient(base_url=URL, token=key, prefix="", auth_header_name="x-api-key")


nobody = Client(base_url=URL)
service = with_key(os.environ["SERVICE_KEY"])

wanted = SignupRequest(email=EMAIL, password=PASSWORD, name="Ann")
user = a(AuthResult, signup.sync(client=nobody, body=wanted)).user
assert user.email == EMAIL
assert a(Error, signup.sync(client=nobody, body=wanted)).status_code == 409
wrong = login.sync(client=nobody, body=LoginRequest(email=EMAIL, password="wrong"))
assert a(Error, wrong).message == "Invalid credentials"

tokens = a(AuthResult, login.sync(client=nobody, body=LoginRequest(email=EMAIL, password=PASSWORD)))
ann = AuthenticatedClient(base_url=URL, token=tokens.access_token)
assert a(Profile, get_current_user.sync(client=ann)).name == "Ann"

expires_at = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)
key = CreateApiKeyRequest(name="ci", expires_at=expires_at, rate_limit=RateLimit(limit=100, window="1m"))
created = a(CreatedApiKey, create_api_key.sync(client=ann, body=key))
assert created.expires_at == expires_at
keys = a(list, list_api_keys.sync(client=ann))
assert [a(ApiKey, key).id for key in keys] == [created.id]

used = a(ServiceAccess, get_service_only.sync(client=with_key(created.key)))
assert used.user.user_id == user.id


def verify() -> KeyVerification:
    return a(KeyVerification, verify_api_key.sync(client=service, body=VerifyApiKeyRequest(key=created.key)))


assert verify().code == KeyVerificationCode.VALID
question = IntrospectionRequest(token=tokens.access_token)
assert a(Introspection, introspect_token.sync(client=service, body=question)).active

a(KeyRevoked, revoke_api_key.sync(created.id, client=ann))
assert not verify().valid
