"""A mail server for tests: takes mail, or does what the test says. Commands come on standard input, one a line; what
happens goes to standard output, one JSON object a line. Argument: a JSON object of options."""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

OPTIONS = json.loads(sys.argv[1])
# step -> "hang", "drop", or an answer.
BEHAVIOUR = {}


def tell(**what):
    print(json.dumps(what), flush=True)


class Server(SMTP):
    async def step(self, name):
        """What the client gets instead of the usual answer."""
        tell(step=name)
        what = BEHAVIOUR.get(name)
        if what == "hang":
            await asyncio.sleep(3600)
        if what == "drip":
            while True:
                self._writer.write(b"2")
                await self._writer.drain()
                await asyncio.sleep(1)
        if what == "drop":
            self.transport.abort()
            raise asyncio.CancelledError()
        if what and what.startswith("once "):
            del BEHAVIOUR[name]
            return what.removeprefix("once ")
        return what

    async def _handle_client(self):
        # After STARTTLS it is begun again, without a greeting.
        if not self._tls_handshake_okay or self._original_transport is None:
            answer = await self.step("connect")
            if answer:
                self._writer.write(answer.encode() + b"\r\n")
                return self.transport.close()
        await super()._handle_client()


class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        answer = await server.step("EHLO")
        return [answer] if answer else responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        answer = await server.step("MAIL")
        if not answer:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer or "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = await server.step("RCPT")
        if not answer:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server, session: Session, envelope: Envelope):
        answer = await server.step("DATA")
        if answer:
            return answer
        tell(
            mail=envelope.original_content.decode("utf-8"),
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            options=envelope.mail_options,
            tls=server.transport.get_extra_info("ssl_object") is not None,
            login=session.auth_data,
        )
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    login, password = data.login.decode(), data.password.decode()
    good = [login, password] == OPTIONS["login"]
    return AuthResult(success=good, handled=False, auth_data=login)


async def main():
    context = None
    if OPTIONS.get("certificate"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(OPTIONS["certificate"], OPTIONS["key"])
    implicit = OPTIONS["tls"] == "implicit"
    login = OPTIONS.get("login")

    def protocol():
        return Server(
            Handler(),
            hostname="mail.test",
            enable_SMTPUTF8=OPTIONS["utf8"],
            tls_context=context if OPTIONS["tls"] == "starttls" else None,
            authenticator=authenticate if login else None,
            auth_required=bool(login),
            auth_require_tls=not implicit,
            timeout=600,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if implicit else None)
    tell(port=server.sockets[0].getsockname()[1])
    while True:
        line = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        if not line:
            break
        step, _, what = line.partition(" ")
        BEHAVIOUR.clear()
        if what:
            BEHAVIOUR[step] = what
        tell(set=line)
    # Handlers that hang are not waited for.
    import os

    os._exit(0)


asyncio.run(main())
