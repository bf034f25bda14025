"""What a proxy does to a request: each returns a fault for ``Proxy.rule``."""

from __future__ import annotations

import re
import urllib.parse

from tests.support.proxy import Answer

_XML = [("Content-Type", "application/xml")]


def refuse(status=503, code="SlowDown", message="Please reduce your request rate."):
    """The server's front answers with an error; the request is read whole and done by nobody."""

    def fault(exchange):
        exchange.take()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        exchange.answer(Answer(status, _XML, body))

    return fault


def expired():
    """The credentials were valid until now."""
    return refuse(400, "ExpiredToken", "The provided token has expired.")


def reset_request(after=0):
    """The connection breaks when so many bytes of the request's body have come; the server has seen nothing."""

    def fault(exchange):
        exchange.take(after)
        exchange.reset()

    return fault


def reset_answer(after=0):
    """The request is done, and the connection breaks after so many bytes of the answer's body."""

    def fault(exchange):
        exchange.answer(exchange.forward(), cut=after)

    return fault


def swallow():
    """The request is done, and its answer is lost whole."""

    def fault(exchange):
        exchange.forward()
        exchange.reset()

    return fault


def hang(*, done=False):
    """No answer ever comes; ``done``: though the request was done."""

    def fault(exchange):
        if done:
            exchange.forward()
        else:
            exchange.take()
        exchange.hang()

    return fault


def truncate(to):
    """The answer claims success and has only its first bytes, and says that this is all."""
    return _altered(lambda body: body[:to])


def flip(at=0, mask=0x10):
    """A byte of the answer's body comes wrong; it has its full length, and claims success."""

    def alter(body):
        if not body:
            return body
        wrong = bytearray(body)
        wrong[at % len(body)] ^= mask
        return bytes(wrong)

    return _altered(alter)


def spoil_request(at=0, mask=0x10):
    """A byte of the request's body reaches the server wrong."""

    def fault(exchange):
        body = bytearray(exchange.take())
        if body:
            body[at % len(body)] ^= mask
        exchange.answer(exchange.forward(bytes(body)))

    return fault


def stale(age):
    """A listing lacks the objects that were made at most ``age`` requests ago."""

    def fault(exchange):
        hidden = exchange.proxy.young(exchange.asked, age)
        answer = exchange.forward()
        exchange.answer(Answer(answer.status, answer.headers, _without_keys(answer.body, hidden)))

    return fault


def _altered(alter):
    def fault(exchange):
        answer = exchange.forward()
        body = alter(answer.body) if answer.status < 300 else answer.body
        exchange.answer(Answer(answer.status, answer.headers, body))

    return fault


def _without_keys(listing, keys):
    """Return a listing's XML without some keys."""

    def keep(found):
        key = re.search(rb"<Key>(.*?)</Key>", found.group(0), re.DOTALL).group(1).decode()
        return b"" if urllib.parse.unquote(key.replace("&amp;", "&")) in keys else found.group(0)

    shorter = re.sub(rb"<Contents>.*?</Contents>", keep, listing, flags=re.DOTALL)
    count = b"<KeyCount>%d</KeyCount>" % (shorter.count(b"<Contents>") + shorter.count(b"<CommonPrefixes>"))
    return re.sub(rb"<KeyCount>\d+</KeyCount>", count, shorter)
