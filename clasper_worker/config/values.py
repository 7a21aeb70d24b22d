"""The forms that the values of settings take.

Each type checks its value, brings it into one form, and says what is wrong without showing it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from clasper_worker.config.local_time import ActiveHours, check_timezone, parse_time_of_day

SENTINEL_SCHEME = "sentinel://"
REDIS_SCHEMES = ("redis://", "rediss://", SENTINEL_SCHEME)
_REDIS_FORMS = "redis://, rediss:// or sentinel://"
# Redis in ways that neither the scheduler nor Celery's result backend reaches it by.
_NOT_OUR_REDIS = {
    "unix": "a socket file is not supported",
    "redis+socket": "a socket file is not supported",
    "socket": "a socket file is not supported",
    "rediscluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis+cluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis-cluster": "a Redis Cluster is not supported: its keys lie on several servers",
    "redis+sentinel": "write sentinel://HOST:26379/0",
}
_WORKSPACE_NAME = re.compile(r"[\w.@:-]{1,256}")
_UNSEEN = "\ufeff\u200b"


def bare_value(text: str) -> str:
    """A variable's value without what stands around it by accident.

    White space and line breaks (a key read from a file), a byte order mark, and a pair of quotes,
    which a shell takes away, but not Docker's ``--env-file``.
    """
    text = _without_space_around(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = _without_space_around(text[1:-1])
    return text


def _without_space_around(text: str) -> str:
    return text.strip().strip(_UNSEEN).strip()


def with_certificate_check(url: str) -> str:
    """Say in a ``rediss://`` URL whether the server's certificate is checked: yes by default.

    Without a word of it Celery and kombu refuse the URL, check nothing, or, with a transport that
    is not kombu's own, do not encrypt. redis-py does not know Python's names for it.
    """
    if not url.startswith("rediss://"):
        return url
    if "ssl_cert_reqs=" not in url:
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    return re.sub(
        r"(?<=ssl_cert_reqs=)CERT_(REQUIRED|OPTIONAL|NONE)\b", lambda found: found[1].lower(), url
    )


def _refuse_space_inside(url: str) -> str:
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("has a space, a line break or another unprintable character inside")
    return url


def _refuse_other_redis(url: str) -> str:
    scheme = url.partition("://")[0].lower()
    if problem := _NOT_OUR_REDIS.get(scheme):
        raise ValueError(f"{scheme}:// cannot be used: {problem}. Use {_REDIS_FORMS}")
    return url


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must start with http:// or https:// and name a host")
    return value.rstrip("/")


def _fits_a_header(value: SecretStr) -> SecretStr:
    if not all(" " <= char <= "~" for char in value.get_secret_value()):
        raise ValueError(
            "has a line break or another character inside that no header can carry: copy it again"
        )
    return value


def _known_transport(value: str) -> str:
    if value.startswith(REDIS_SCHEMES):
        return value
    from kombu.transport import TRANSPORT_ALIASES  # noqa: PLC0415 - few need to look

    _refuse_other_redis(value)
    scheme = re.split(r"://|\+", value, maxsplit=1)[0]
    ready_made = "://" in value and re.search(r"[.:]", scheme)  # a transport by its class
    if scheme not in TRANSPORT_ALIASES and not ready_made:
        raise ValueError("must start with redis://, rediss://, sentinel:// or amqp://")
    return value


def _a_redis(value: str) -> str:
    if not value.startswith(REDIS_SCHEMES):
        raise ValueError(f"must start with {_REDIS_FORMS}: our own state is kept in Redis")
    return value


def _hours(value: str) -> str:
    ActiveHours.parse(value)
    return value


def _time_of_day(value: str) -> str:
    parse_time_of_day(value)
    return value


def _named_paths(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    named: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, _, path = (part.strip() for part in item.partition("="))
        if not _WORKSPACE_NAME.fullmatch(name) or not path:
            raise ValueError("must be name=path, comma separated, such as acme=./acme")
        if name in {"default", *named}:
            raise ValueError("must not name default, which is CLASPER_WORKSPACE, or one twice")
        named[name] = path
    return named


def _comma_separated_hosts(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    hosts = (host.strip().lower() for host in value.split(","))
    return frozenset(host.removeprefix("[").removesuffix("]") for host in hosts if host)


_NoSpace = AfterValidator(_refuse_space_inside)
_NoOtherRedis = AfterValidator(_refuse_other_redis)
_Certificates = AfterValidator(with_certificate_check)

HttpUrl = Annotated[str, _NoSpace, AfterValidator(_http_url)]
BrokerUrl = Annotated[str, _NoSpace, AfterValidator(_known_transport), _Certificates]
ResultUrl = Annotated[str, _NoSpace, _NoOtherRedis, _Certificates]
RedisUrl = Annotated[str, _NoSpace, _NoOtherRedis, AfterValidator(_a_redis), _Certificates]
HeaderSecret = Annotated[SecretStr, AfterValidator(_fits_a_header)]
TimezoneName = Annotated[str, AfterValidator(check_timezone)]
HoursOfDay = Annotated[str, AfterValidator(_hours)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
NamedPaths = Annotated[dict[str, Path], NoDecode, BeforeValidator(_named_paths)]
HostNames = Annotated[frozenset[str], NoDecode, BeforeValidator(_comma_separated_hosts)]
