"""What a trapped system call is answered with. A failure is raised, as KernelError or OSError."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Continue:
    """Not our business: the real kernel executes the call."""


@dataclass(frozen=True, slots=True)
class Value:
    """The call returns ``value``."""

    value: int


@dataclass(frozen=True, slots=True)
class NewFd:
    """The call returns a new descriptor in the caller: a copy of ``fd``, which the supervisor closes afterwards."""

    fd: int
    cloexec: bool


Reply = Continue | Value | NewFd
CONTINUE = Continue()
