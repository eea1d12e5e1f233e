"""A store's keys: from the configuration, or where AWS's own tools find them; found again when need be."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from aiobotocore.credentials import AioCredentials, AioRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ConfigParseError

from common.errors import ConfigError, RouteDown
from common.store.failures import NO_CREDENTIALS
from common.tables import StoreSettings

FIND_WITHIN = 30.0
"""Seconds for the chain: a program of the user's or a service of the cloud may be asked."""

AGAIN_AFTER = 5.0
"""Seconds between two searches: every request that fails would begin one."""

LOOK_AFTER = 1.0
"""Seconds between two looks at whether the files have changed."""

Reread = Callable[[], StoreSettings | None]
"""Returns the store's settings as they are written by now, None when they cannot be used."""

Found = AioCredentials | AioRefreshableCredentials
"""What the chain finds: keys for good, or keys that it renews."""

HINT = "add access_key_id and secret_access_key, or profile; it is tried again until some are found"

_SAYS = {
    "ProfileNotFound": "the profile is not there (any more)",
    "PartialCredentialsError": "a key without its secret is found, or a secret without its key",
    "CredentialRetrievalError": "the program or service that gives them has failed",
    "FileNotFoundError": "the program that gives them (credential_process) is not there",
    "PermissionError": "the program that gives them (credential_process) may not be run",
    "JSONDecodeError": "the program that gives them (credential_process) prints no JSON",
    "InvalidConfigError": "the profile names another (source_profile), or a source, that is not there",
    "SSOTokenLoadError": "nobody has signed in: run  aws sso login",
    "UnauthorizedSSOTokenError": "the session has ended: run  aws sso login",
    "TokenRetrievalError": "the session has ended: run  aws sso login",
    "TimeoutError": f"the program or service that gives them has not answered within {FIND_WITHIN:.0f} s",
}


class Credentials(AioCredentials):
    """Keys that are looked for when they are asked for, by botocore's signers as well as ours.

    They are found again after the store `refused` them, and when AWS's files have changed; while that fails,
    those that were found before go on. `clock` is in seconds.
    """

    def __init__(
        self,
        name: str,
        settings: StoreSettings,
        reread: Reread | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("", "")
        self._name = name
        self._settings = settings
        self._reread = reread
        self._clock = clock
        self._found: Found | None = None
        self._finding = asyncio.Lock()
        self._stale = True
        self._looked = self._tried = -AGAIN_AFTER
        self._files: tuple[str, ...] = ()
        self._seen: tuple[object, ...] = ()
        self._why = ""

    def refused(self) -> None:
        """The store has refused what was signed with them: they may have been replaced."""
        self._stale = True

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:  # type: ignore[override] # as aiobotocore has it
        """Return the keys of this moment. Raises `RouteDown` while there are none."""
        if self._due():
            async with self._finding:
                if self._due():
                    await self._find()
        if self._found is None:
            raise _none(f"stores.{self._name}: no credentials: {self._why}: {HINT}")
        if not isinstance(self._found, AioRefreshableCredentials):  # nothing to renew
            return await self._found.get_frozen_credentials()
        try:
            async with asyncio.timeout(FIND_WITHIN):
                return await self._found.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - what is foreign has many errors, and none may be shown
            self._stale = True
            raise _none(f"stores.{self._name}: the credentials cannot be renewed: {why(error)}") from None

    def _due(self) -> bool:
        """Whether to look for them now."""
        now = self._clock()
        if not self._stale and now - self._looked >= LOOK_AFTER:
            self._looked = now
            self._stale = _state(self._files) != self._seen
        return self._stale and now - self._tried >= AGAIN_AFTER

    async def _find(self) -> None:
        self._tried = self._clock()
        if self._reread is not None and self._found is not None:
            self._settings = self._reread() or self._settings
        self._seen = _state(self._files)
        try:
            async with asyncio.timeout(FIND_WITHIN):
                found = await self._look_for()
        except Exception as error:  # noqa: BLE001 - the chain runs programs and asks services: anything may come
            self._why = why(error)
            return
        if found is None:
            self._why = "none are found"
            return
        self._found, self._stale = found, False

    async def _look_for(self) -> Found | None:
        settings = self._settings
        key, secret, token = settings.access_key_id, settings.secret_access_key, settings.session_token
        if key is not None and secret is not None:
            return AioCredentials(key, secret.get_secret_value(), token.get_secret_value() if token else None)
        session = open_session(self._name, settings)
        names = (session.get_config_variable(name) for name in ("credentials_file", "config_file"))
        self._files = tuple(map(str, names))
        self._seen = _state(self._files)
        found: Found | None = await session.get_credentials()
        return found


def open_session(name: str, settings: StoreSettings) -> AioSession:
    """Return a session of botocore's, which reads AWS's files anew. Raises `ConfigError` for a profile that
    they do not have."""
    session = AioSession(profile=settings.profile)
    session.set_config_variable("region", settings.region)
    profile = session.profile
    if profile is not None and profile not in session.available_profiles:
        key = f"stores.{name}.profile" if settings.profile else "AWS_PROFILE"
        raise ConfigError(
            f'{key} = "{profile}": AWS\'s files have no such profile: name another, or run '
            f"aws configure --profile {profile}"
        )
    return session


def lend(session: AioSession, credentials: Credentials) -> None:
    """Let the clients of `session` sign with `credentials`; else it looks for some at once, and only once."""
    session._credentials = credentials  # type: ignore[attr-defined] # the stubs leave it out


def _state(files: tuple[str, ...]) -> tuple[object, ...]:
    """Return what tells whether `files` have changed."""
    return tuple(map(_stamp, files))


def _stamp(file: str) -> object:
    try:
        found = Path(file).expanduser().stat()
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _none(text: str) -> RouteDown:
    error = RouteDown(text)
    error.code = NO_CREDENTIALS
    return error


def why(error: Exception) -> str:
    """Return what an error means. What it says may hold what a program printed, or a line of a file."""
    if isinstance(error, ConfigError):
        return _SAYS["ProfileNotFound"]
    if isinstance(error, ConfigParseError):
        line = _line(error.kwargs["error"])  # type: ignore[typeddict-item] # the stubs leave it out
        return f"AWS's file {error.kwargs['path']} cannot be parsed{line}: mend it"
    response = getattr(error, "response", None)  # of botocore's ClientError
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    name = type(error).__name__
    return _SAYS.get(name) or (f"{name} {code}" if code else name)


def _line(error: Exception) -> str:
    """Return the line at which the parser has stopped, "" where it does not tell."""
    lines = [number for number, _ in getattr(error, "errors", [])] or [getattr(error, "lineno", None)]
    return f" (line {lines[0]})" if lines[0] else ""
