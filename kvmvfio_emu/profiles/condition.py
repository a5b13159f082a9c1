"""What a declaration says of the kernels that have the thing it declares: a condition on a profile's fields."""

from __future__ import annotations


def holds(condition: str, profile: object) -> bool:
    """Whether ``profile`` meets ``condition``.

    A condition is words between blanks, all of which must hold: ``field`` (its value is true, or not empty),
    ``!field``, ``field=value``, ``field!=value``. The empty one always holds. AttributeError: no such field.
    """
    return all(_word_holds(word, profile) for word in condition.split())


def _word_holds(word: str, profile: object) -> bool:
    name, equals, value = word.partition("=")
    if equals:
        return (str(getattr(profile, name.removesuffix("!"))) == value) is not name.endswith("!")
    return bool(getattr(profile, word.removeprefix("!"))) is not word.startswith("!")
