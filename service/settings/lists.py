"""Settings that are several words, separated by commas."""

from pydantic import BeforeValidator, SecretStr


def _words(text: str | tuple[str, ...]) -> tuple[str, ...]:
    words = text.split(",") if isinstance(text, str) else text
    return tuple(word.strip() for word in words if word.strip())


def _names(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.lower() for word in _words(text))


Words = BeforeValidator(_words)
Names = BeforeValidator(_names)  # of hosts: they are the same in any case


def parts_of(secret: SecretStr) -> tuple[str, ...]:
    return _words(secret.get_secret_value())
