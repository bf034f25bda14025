"""What goes wrong at a server, as the errors of the system: one kind for each thing that a caller may do about it."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
from collections.abc import Iterator
from typing import Any

from holdfast.storage.remote.redaction import redacted

_Kind = tuple[type[OSError], int]
_ABSENT: _Kind = (FileNotFoundError, errno.ENOENT)
_CONDITION: _Kind = (FileExistsError, errno.EEXIST)
_REFUSED: _Kind = (PermissionError, errno.EACCES)
_SLOW: _Kind = (TimeoutError, errno.ETIMEDOUT)
_AGAIN: _Kind = (ConnectionError, errno.EBUSY)
_BROKEN: _Kind = (ConnectionError, errno.ECONNRESET)
_OTHER: _Kind = (OSError, errno.EIO)

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_CODES: dict[_Kind, frozenset[str]] = {
    _CONDITION: frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
    | {"conditionNotMet", "ConditionNotMet", "BlobAlreadyExists"},
    _ABSENT: frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NoSuchVersion"}),
    _REFUSED: _EXPIRED
    | {"AccessDenied", "AccountProblem", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidToken", "InvalidSecurity"}
    | {"RequestTimeTooSkewed", "SignatureDoesNotMatch"},
    _SLOW: frozenset({"RequestTimeout", "RequestTimeoutException"}),
    _AGAIN: frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure", "OperationAborted"})
    | {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException"}
    | {"ServerBusy", "OperationTimedOut", "Md5Mismatch", "IncompleteBody", "XAmzContentSHA256Mismatch", "BadDigest"},
}
_STATUS: dict[int, _Kind] = {401: _REFUSED, 403: _REFUSED, 404: _ABSENT, 408: _SLOW, 412: _CONDITION, 429: _AGAIN}
_BY_STATUS = {**_STATUS, **dict.fromkeys((500, 502, 503, 504, 509, 520, 522, 524, 529), _AGAIN)}

_NAMES: dict[_Kind, frozenset[str]] = {
    _SLOW: frozenset({"TimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "FSTimeoutError"})
    | {"ServiceRequestTimeoutError", "ServiceResponseTimeoutError"},
    _REFUSED: frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
    | {"TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"}
    | {"ClientAuthenticationError", "CredentialUnavailableError", "DefaultCredentialsError", "RefreshError"},
    _BROKEN: frozenset({"HTTPClientError", "ClientError", "ResponseParserError", "ResponseStreamingError"})
    | {"ConnectionError", "EndpointConnectionError", "ConnectionClosedError", "ProxyConnectionError"}
    | {"IncompleteReadError", "FlexibleChecksumError", "ServiceRequestError", "ServiceResponseError", "TransportError"},
}
_CREDENTIALS = (
    "are the credentials right, and those of this server? They are looked for in the storage options, the environment "
    "and the profile"
)
_CURES = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "NoCredentialsError"), _CREDENTIALS
    ),
    "PartialCredentialsError": _CREDENTIALS,
    "AccessDenied": "do these credentials give the right to do this, in this bucket?",
    "NoSuchBucket": "is the name right, and is it on this server? A bucket has to be made before anything is saved",
    "NoSuchUpload": "the upload in parts was begun, and the server has it no more: another program or a rule of the "
    "bucket has aborted it, or the server gave it up for a wrong part. Another try begins it anew",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "EndpointConnectionError": "is the endpoint right, and does the server run?",
}
_CERTIFICATES = (
    "is that the path of a file of certificates? It is taken from `verify` in client_kwargs, or from AWS_CA_BUNDLE"
)
_CERTIFICATE = (
    "the server's certificate is not one that is trusted here: name the file of the authority's certificate, as "
    "`verify` in client_kwargs or by AWS_CA_BUNDLE, if the server is the right one"
)
_NO_NAME = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
_ENDING = "cannot schedule new futures after"  # Python's own words when the interpreter, or a loop's pool, is over
_CUT = (ConnectionError, EOFError, http.client.HTTPException, asyncio.IncompleteReadError)


def answered(status: int, code: str, said: str, what: str) -> OSError:
    """Return the error for a server's answer, by its HTTP status and its own code (``SlowDown``)."""
    by_code = (kind for kind, codes in _CODES.items() if code in codes)
    number = status or (int(code) if code.isdigit() else 0)
    made, system = next(by_code, None) or _BY_STATUS.get(number, _OTHER)
    text = f"{what}: the server answered {status or ''} {code}".rstrip() + (f" ({said})" if said else "")
    if code in _CURES:
        text += f": {_CURES[code]}"
    if code in _EXPIRED:
        text += ": the credentials have expired, get new ones (a new login, or a new token in the storage options)"
    error = made(system, redacted(text))
    vars(error)["code"] = code
    return error


def changed_on_its_way(what: str, etag: str) -> OSError:
    """Return the error for an object, or a part, whose etag is not that of what was sent."""
    made, system = _AGAIN
    return made(system, f"{what}: what has arrived is not what was sent: its etag is {etag!r}")


def translated(error: BaseException, what: str) -> OSError:
    """Return the error as the protocol has it: ``what`` says what was tried, and with which object."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and isinstance(response.get("Error"), dict):  # botocore's ClientError
        said = response["Error"]
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        return answered(status, str(said.get("Code", "")), str(said.get("Message", "")), what)
    if error.__cause__ is not None and isinstance(getattr(error.__cause__, "response", None), dict):
        return translated(error.__cause__, what)  # s3fs has made a system's error of it
    names = {kind.__name__ for kind in type(error).__mro__}
    kind = next((kind for kind, known in _NAMES.items() if known & names), None)
    if kind is None and isinstance(error, OSError) and not isinstance(error, _CUT):
        return error if is_clean(error) else _like(error)
    made, system = kind or (_BROKEN if isinstance(error, _CUT) else _OTHER)
    if _ENDING in str(error):
        made, system = _OTHER  # this process ends: no further try can help it
    untrusted = _untrusted(error)
    cure = f": {untrusted}" if untrusted else next((f": {_CURES[name]}" for name in names & _CURES.keys()), "")
    known_error = made(system, redacted(f"{what}: {type(error).__name__}: {error}".rstrip(": ")) + cure)
    vars(known_error)["is_wrong_word"] = _is_unknown_host(error) or bool(untrusted)
    return known_error


def _is_unknown_host(error: BaseException) -> bool:
    """Tell whether an error comes of a name that no server for names knows; that of one which is busy is another."""
    return any(isinstance(one, socket.gaierror) and one.errno in _NO_NAME for one in _behind(error))


def _untrusted(error: BaseException) -> str:
    """Return what to do about a certificate that is not trusted, or a file of certificates that is not there; or ""."""
    if any(type(one).__name__ == "SSLCertVerificationError" for one in _behind(error)):
        return _CERTIFICATE
    inner = (getattr(error, "kwargs", None) or {}).get("error")  # botocore's; urllib3 has one more around it
    found = (inner, *getattr(inner, "args", ()))
    return _CERTIFICATES if any(isinstance(one, FileNotFoundError) for one in found) else ""


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that is behind it, however its library keeps that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)  # aiohttp's
        if isinstance(inner, BaseException):
            yield inner
        error = error.__cause__ or error.__context__ or (getattr(error, "kwargs", None) or {}).get("error")


def _like(error: OSError) -> OSError:
    """Return one of the system's own kind, of the same meaning, without the secrets in its text."""
    known = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
    made = next((kind for kind in known if isinstance(error, kind)), OSError)
    return made(error.errno or errno.EIO, redacted(error.strerror or str(error)))


def cause_of(known: OSError, error: BaseException) -> BaseException | None:
    """Return what an error may show as its cause: the other one, unless a secret is in its text, or it is itself."""
    return None if known is error or not is_clean(error) else error


def is_clean(error: BaseException) -> bool:
    """Tell whether an error, and all that it shows as its causes, can be told as they are."""
    shown: BaseException | None = error
    while shown is not None:
        if redacted(str(shown)) != str(shown):
            return False
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return True


def has_expired(error: BaseException) -> bool:
    """Tell whether the credentials of a request were good once."""
    return code_of(error) in _EXPIRED


def code_of(error: BaseException | None) -> str:
    """Return the server's own word for an error; "" where it had none."""
    while error is not None:
        code = vars(error).get("code")
        if isinstance(code, str):
            return code
        error = error.__cause__
    return ""
