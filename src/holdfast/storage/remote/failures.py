"""What goes wrong at a server, as the errors of the system: one kind for each thing that a caller may do about it."""

from __future__ import annotations

import asyncio
import errno
import http.client
from typing import Any

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
    _CONDITION: frozenset({"PreconditionFailed", "ConditionalRequestConflict"}),
    _ABSENT: frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NoSuchVersion"}),
    _REFUSED: _EXPIRED
    | {"AccessDenied", "AccountProblem", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidToken", "InvalidSecurity"}
    | {"RequestTimeTooSkewed", "SignatureDoesNotMatch"},
    _SLOW: frozenset({"RequestTimeout", "RequestTimeoutException"}),
    _AGAIN: frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure", "OperationAborted"})
    | {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException"}
    | {"IncompleteBody", "XAmzContentSHA256Mismatch", "BadDigest"},
}
_STATUS: dict[int, _Kind] = {401: _REFUSED, 403: _REFUSED, 404: _ABSENT, 408: _SLOW, 412: _CONDITION, 429: _AGAIN}
_BY_STATUS = {**_STATUS, **dict.fromkeys((500, 502, 503, 504, 509, 520, 522, 524, 529), _AGAIN)}

_NAMES: dict[_Kind, frozenset[str]] = {
    _SLOW: frozenset({"TimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "FSTimeoutError"}),
    _REFUSED: frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
    | {"TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"},
    _BROKEN: frozenset({"HTTPClientError", "ClientError", "ResponseParserError", "ResponseStreamingError"})
    | {"ConnectionError", "EndpointConnectionError", "ConnectionClosedError", "ProxyConnectionError"}
    | {"IncompleteReadError", "FlexibleChecksumError"},
}
_CUT = (ConnectionError, EOFError, http.client.HTTPException, asyncio.IncompleteReadError)


def answered(status: int, code: str, said: str, what: str) -> OSError:
    """Return the error for a server's answer, by its HTTP status and its own code (``SlowDown``)."""
    by_code = (kind for kind, codes in _CODES.items() if code in codes)
    number = status or (int(code) if code.isdigit() else 0)
    made, system = next(by_code, None) or _BY_STATUS.get(number, _OTHER)
    text = f"{what}: the server answered {status or ''} {code}".rstrip() + (f" ({said})" if said else "")
    if code in _EXPIRED:
        text += ": the credentials have expired, get new ones (a new login, or a new token in the storage options)"
    return made(system, text)


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
        return error
    made, system = kind or (_BROKEN if isinstance(error, _CUT) else _OTHER)
    return made(system, f"{what}: {type(error).__name__}: {error}".rstrip(": "))


def code_of(error: BaseException | None) -> str:
    """Return the server's own word for an error; "" where it had none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
