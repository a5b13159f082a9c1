"""What a declaration says of the kernels that have the thing it declares: a condition on a profile's fields."""

from __future__ import annotations

from typing import Any


def holds(condition: str, profile: object) -> bool:
    """Whether ``profile`` meets ``condition``.

    A condition is words between blanks, all of which must hold: ``field`` (its value is true, or not empty),
    ``!field``, ``field=value``, ``field!=value``. The empty one always holds. A field is one of the profile, or the
    name of a capability, KVM_CAP_*. AttributeError: no such field.
    """
    return all(_word_holds(word, profile) for word in condition.split())


def _word_holds(word: str, profile: object) -> bool:
    name, equals, value = word.partition("=")
    if equals:
        return (str(_value(name.removesuffix("!"), profile)) == value) is not name.endswith("!")
    return bool(_value(word.removeprefix("!"), profile)) is not word.startswith("!")


def _value(name: str, profile: Any) -> object:
    return profile.capability(name) if name.startswith("KVM_CAP_") else getattr(profile, name)
