"""What schemathesis cannot know from the document: who asks, and the few rules that JSON Schema cannot express.

It is written for the version that schemathesis.sh names.
"""

import base64
import itertools
import json
import os
import pathlib
import re
import subprocess
import uuid
from datetime import datetime, timedelta, timezone

import requests
import schemathesis
from schemathesis.auths import CachingAuthProvider
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import ObjectLevelAuthorizationViolation, UnsupportedMethodResponse, UseAfterFree
from schemathesis.wfc.escalation import EscalatingAuthProvider

PASSWORD = "a good Password 1!"
SCOPES = ["keys:verify", "a"]
# Nobody has this name (RFC 6761), so nothing is sent.
URL = "https://hooks.invalid/in"
COMMON = set((pathlib.Path(__file__).parent.parent / "static/common-passwords.txt").read_text().split())

# These end the credential that they are asked with, so each has one of its own.
ENDING = {"logout", "deleteCurrentUser", "changePassword", "revokeOwnApiKey"}

turns = itertools.count()


class Account:
    """Somebody who has signed up, with a session and a key."""

    def __init__(self, base, scopes=SCOPES):
        self.base = base
        self.scopes = scopes
        self.email = f"{uuid.uuid4()}@example.com"
        self.sign_up(self.email)
        Account.latest = self.email
        # A key has only scopes that its owner was granted.
        grant = [os.environ["KEYWARD"], "user", "grant", self.email, *scopes]
        subprocess.run(grant, check=True, stdout=subprocess.DEVNULL)
        self.enter()

    def sign_up(self, email):
        """The id of a new user."""
        return self.post("/auth/signup", {"email": email, "password": PASSWORD})["user"]["id"]

    def is_admitted(self):
        headers = {"authorization": f"Bearer {self.access}"}
        return requests.get(self.base + "/admin/users?limit=1", headers=headers, timeout=30).ok

    def enter(self):
        """Begins a session, and makes a key."""
        answer = self.post("/auth/login", {"email": self.email, "password": PASSWORD})
        self.access, self.refresh = answer["accessToken"], answer["refreshToken"]
        self.key = self.new_key()["key"]

    def new_key(self):
        headers = {"authorization": f"Bearer {self.access}"}
        return self.post("/keys/create", {"name": "key", "scopes": self.scopes}, headers)

    def new_session(self):
        """The id of one beside that which asks, as the payload of its token has it."""
        token = self.post("/auth/login", {"email": self.email, "password": PASSWORD})["accessToken"]
        return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["sid"]

    def new_webhook(self, at):
        """The id of an endpoint, and that of a delivery to it. `at`: where endpoints are."""
        headers = {"authorization": f"Bearer {self.access}"}
        for old in requests.get(self.base + at, headers=headers, timeout=30).json()[5:]:
            requests.delete(f"{self.base}{at}/{old['id']}", headers=headers, timeout=30)
        webhook = self.post(at, {"url": URL, "types": ["user.deleted"]}, headers)["id"]
        return webhook, self.post(f"{at}/{webhook}/test", {}, headers)["id"]

    def post(self, path, body, headers=None):
        answer = requests.post(self.base + path, json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json()


class Operator:
    """Asks under /admin, for everybody."""

    account = None

    @classmethod
    def get(cls, base):
        # Another request may have ended it.
        if cls.account is None or not cls.account.is_admitted():
            cls.account = Account(base, [*SCOPES, "keyward:admin"])
        return cls.account


class Person:
    """Signs up when first needed, and logs in again when the session or the key was ended."""

    account = None

    def get(self, case, context):
        try:
            self.account.enter()
        except (AttributeError, requests.HTTPError):
            # There is none, or it cannot be used any more.
            self.account = Account(base_url(case))
        return self.account

    def set(self, case, account, context):
        if operation_id(case) in ENDING and is_valid(case):
            account = Account(account.base)
        elif is_operators(case):
            account = Operator.get(account.base)
        # Where no link leads to something that exists, half of the ids are made so.
        if "id" in (case.path_parameters or {}) and is_valid(case) and not is_linked(case) and next(turns) % 2:
            if "/users/" in case.operation.path:
                case.path_parameters["id"] = account.sign_up(f"{uuid.uuid4()}@example.com")
            elif "/webhooks/" in case.operation.path:
                at = "/admin/webhooks" if is_operators(case) else "/webhooks"
                webhook, delivery = account.new_webhook(at)
                case.path_parameters["id"] = webhook
                if "delivery" in case.path_parameters:
                    case.path_parameters["delivery"] = delivery
            elif operation_id(case) == "endSession":
                case.path_parameters["id"] = account.new_session()
            else:
                case.path_parameters["id"] = account.new_key()["id"]
        security = case.operation.definition.raw["security"]
        ways = [name for requirement in security for name in requirement]
        # Where either credential is taken, each is sent in its turn.
        way = ways[next(turns) % len(ways)] if ways else None
        case.headers = case.headers or {}
        if way == "jwt":
            case.headers["Authorization"] = f"Bearer {account.access}"
        elif way == "apiKey":
            case.headers["x-api-key"] = account.key
        elif way == "keyAsBearer":
            case.headers["Authorization"] = f"Bearer {account.key}"
        elif way == "keyAsPassword":
            case.headers["Authorization"] = requests.auth._basic_auth_str("key", account.key)


def is_valid(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def is_operators(case):
    return case.operation.path.startswith("/admin/")


def is_linked(case):
    return case.meta.phase.name == TestPhase.STATEFUL


def operation_id(case):
    return case.operation.definition.raw["operationId"]


def base_url(case):
    return case.operation.schema.get_base_url().rstrip("/")


@schemathesis.hook
def after_load_schema(context, schema):
    # Two people: what one has made is asked for by the other as well (the check object_level_authorization).
    names = ["ann", "bob"]
    people = [CachingAuthProvider(Person(), refresh_interval=3600) for _ in names]
    schema.auth.providers.append(EscalatingAuthProvider(people, names, peers=tuple(names), pinned="ann"))


@schemathesis.deserializer("image/png")
def image(context, response):
    return base64.b64encode(response.content).decode()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes valid what the document's schemas allow and its descriptions do not. What is meant to be invalid stays."""
    operation = operation_id(case)
    if operation.startswith("extAuthz") and isinstance(case.query, dict) and "path" in case.query:
        # It is the last one: what follows it is the client's, and not looked at.
        case.query["path"] = case.query.pop("path")
    if not is_valid(case):
        return
    if operation in ("getApiKeyUsage", "getAnyApiKeyUsage", "getStatistics") and isinstance(case.query, dict):
        fit_period(case.query)
    if operation.startswith("list") and isinstance(case.query, dict):
        # Only the id of something that is stored is valid.
        case.query.pop("after", None)
    if not isinstance(case.body, dict):
        return
    fit(case.body)
    if operation == "createUser" and case.body.get("kind") == "service":
        # It never logs in.
        case.body.pop("password", None)
        case.body["scopes"] = []
    if operation == "createApiKeyForUser" and next(turns) % 2:
        case.body["userId"] = Operator.get(base_url(case)).sign_up(f"{uuid.uuid4()}@example.com")
    if operation == "login" and next(turns) % 2:
        case.body.update(email=Account.latest, password=PASSWORD)
    elif operation == "refreshTokens" and next(turns) % 2:
        case.body["refreshToken"] = Account(base_url(case)).refresh
    elif operation == "changePassword":
        if next(turns) % 2:
            case.body["currentPassword"] = PASSWORD
        if case.body["newPassword"] == case.body["currentPassword"]:
            case.body["newPassword"] = PASSWORD[::-1]
    elif operation == "deleteCurrentUser" and next(turns) % 2:
        case.body["password"] = PASSWORD
    elif operation == "introspectToken" and next(turns) % 2:
        case.body["token"] = Account(base_url(case)).access
    elif operation == "deriveToken" and case.body.get("scopes"):
        # Some of the key's.
        case.body["scopes"] = SCOPES[: len(case.body["scopes"])]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """What three of the checks take for granted and this API does not have. Everything else is a finding."""
    # DELETE revokes a key and does not make it vanish: it can still be read, and how it was used. A list of sessions that
    # have ended is empty.
    remaining = {"getApiKey", "getApiKeyUsage", "getAnyApiKey", "getAnyApiKeyUsage", "listSessionsOfUser"}
    remains = isinstance(failure, UseAfterFree) and operation_id(case) in remaining
    # Gateways ask in the method of the request that they ask about, whatever it is. OpenAPI 3.1 cannot name this one.
    takes_any = case.operation.path.startswith("/authz/")
    unnamed = isinstance(failure, UnsupportedMethodResponse) and takes_any and response.request.method == "QUERY"
    # Operators ask for everybody.
    everybodys = isinstance(failure, ObjectLevelAuthorizationViolation) and is_operators(case)
    return not (remains or unnamed or everybodys)


LONGEST = {"window": timedelta(days=1), "expiresIn": timedelta(hours=1), "gracePeriod": timedelta(days=30)}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def fit(body):
    for name, value in list(body.items()):
        if name == "allowedIps" and isinstance(value, list):
            body[name] = ["127.0.0.0/8", "2001:db8::/32"][: len(value)]
        elif isinstance(value, list):
            for item in filter(lambda item: isinstance(item, dict), value):
                fit(item)
        elif isinstance(value, dict) and name != "metadata":
            fit(value)
        elif not isinstance(value, str):
            continue
        elif name == "url":
            body[name] = URL
        elif name == "ip":
            body[name] = "192.0.2.7"
        elif name in ("password", "newPassword"):
            # 72 bytes at most, which are 18 characters or more.
            if len(value.encode()) > 72:
                value = value[:18]
            body[name] = value + "~" if value in COMMON else value
        elif name == "expiresAt" and moment(value) <= datetime.now(timezone.utc):
            body[name] = re.sub("^....", "2999", value).replace("2999-02-29", "2999-03-01")
        elif name in LONGEST:
            seconds = int(value[:-1]) * UNITS[value[-1]]
            if seconds > LONGEST[name].total_seconds():
                body[name] = "1m"


def fit_period(query):
    """From before to, and at most 1000 hours before."""
    end = moment(query["to"]) if isinstance(query.get("to"), str) else datetime.now(timezone.utc)
    start = moment(query["from"]) if isinstance(query.get("from"), str) else end - timedelta(hours=1)
    if not timedelta(hours=1) <= end - start <= timedelta(hours=900):
        query.pop("from", None)


def moment(text):
    try:
        return datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        # A leap second, or a year that Python does not count.
        return datetime.max.replace(tzinfo=timezone.utc)
