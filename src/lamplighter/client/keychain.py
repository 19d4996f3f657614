"""Keys in the keychain of the operating system: Secret Service, KWallet, macOS's, Windows's. An extra, `keychain`.

A keychain that keeps keys in the open, or nowhere, is no keychain: such backends are refused. No error of `keyring`
gets out of here, because its frames hold what was to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lamplighter.api.secret import Secret
from lamplighter.client.errors import ConfigurationError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE: Final = "lamplighter"
#: As `keyring` itself has it: below this a backend is not recommended. Those that write plain text, or ask for a
#: password each time, are.
_LEAST_PRIORITY: Final = 1
_NO_KEYRING: Final = "keyring is not installed: pip install 'lamplighter[keychain]'"


class Keychain:
    """A backend that keeps secrets. Get one by `open_keychain`."""

    def __init__(self, backend: KeyringBackend) -> None:
        self.backend = backend
        self.name = str(getattr(backend, "name", type(backend).__module__))

    def get(self, account: str) -> Secret | None:
        """None when there is none of that name. Raises ConfigurationError when the keychain does not open."""
        found = self._get(account)
        if isinstance(found, str):
            raise ConfigurationError(f"the keychain ({self.name}) does not give the key: {found}")
        return found

    def set(self, account: str, key: Secret) -> None:
        """Raises ConfigurationError."""
        if (failed := self._set(account, key)) is not None:
            raise ConfigurationError(f"the keychain ({self.name}) does not take the key: {failed}")

    def delete(self, account: str) -> None:
        """No error when there is none of that name. Raises ConfigurationError."""
        if self.get(account) is not None and (failed := self._delete(account)) is not None:
            raise ConfigurationError(f"the keychain ({self.name}) does not remove the key: {failed}")

    def _get(self, account: str) -> Secret | str | None:
        try:
            found = self.backend.get_password(SERVICE, account)
        except Exception as error:  # noqa: BLE001 - backends raise what their systems raise
            return type(error).__name__
        return Secret(found) if found else None

    def _set(self, account: str, key: Secret) -> str | None:
        try:
            self.backend.set_password(SERVICE, account, key.reveal())
        except Exception as error:  # noqa: BLE001 - the same
            return type(error).__name__
        # Some backends take a secret and keep none.
        return None if self._get(account) == key else "it does not give back what it was given"

    def _delete(self, account: str) -> str | None:
        try:
            self.backend.delete_password(SERVICE, account)
        except Exception as error:  # noqa: BLE001 - the same
            return type(error).__name__
        return None


def open_keychain() -> Keychain:
    """The system's keychain. Raises ConfigurationError when there is none that keeps a secret."""
    try:
        import keyring  # noqa: PLC0415 - an extra, and some 50 ms
        from keyring.backends.chainer import ChainerBackend  # noqa: PLC0415 - the same
    except ImportError:
        raise ConfigurationError(_NO_KEYRING) from None
    chosen = keyring.get_keyring()
    # A chain hands a secret to the next of its backends when the first does not take it.
    backends = list(chosen.backends) if isinstance(chosen, ChainerBackend) else [chosen]
    for backend in backends:
        if _keeps(backend):
            return Keychain(backend)
    raise ConfigurationError("this system has no keychain that keeps a secret; keep the key in the file instead")


def _keeps(backend: KeyringBackend) -> bool:
    try:
        priority = float(backend.priority)
    except Exception:  # noqa: BLE001 - a backend that cannot work here says so by raising
        return False
    return priority >= _LEAST_PRIORITY and "plaintext" not in type(backend).__name__.lower()
