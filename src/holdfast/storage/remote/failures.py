"""What goes wrong at a server, as the errors of the system: one kind for each thing that a caller may do about it."""

from __future__ import annotations

import asyncio
import errno
import http.client
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
_ENDING = "cannot schedule new futures after"  # Python's own words when the interpreter, or a loop's pool, is over
_CUT = (ConnectionError, EOFError, http.client.HTTPException, asyncio.IncompleteReadError)


def answered(status: int, code: str, said: str, what: str) -> OSError:
    """Return the error for a server's answer, by its HTTP status and its own code (``SlowDown``)."""
    by_code = (kind for kind, codes in _CODES.items() if code in codes)
    number = status or (int(code) if code.isdigit() else 0)
    made, system = next(by_code, None) or _BY_STATUS.get(number, _OTHER)
    text = f"{what}: the server answered {status or ''} {code}".rstrip() + (f" ({said})" if said else "")
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
    return made(system, redacted(f"{what}: {type(error).__name__}: {error}".rstrip(": ")))


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
