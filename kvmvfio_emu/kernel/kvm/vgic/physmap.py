"""Which virtual interrupts are forwarded physical ones: a red-black tree by virtual id, under one lock.

Models the map of "ARM: Forwarding physical interrupts to a guest VM" and the series' patch 2, "add forwarded irq
rbtree lock". The lock is a critical section: each method here is one, and the model never splits it. Node memory is
had before it is entered, since nothing may sleep inside.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmvfio_emu.kernel.errors import KernelError
from kvmvfio_emu.kernel.lib.rbtree import RbNode, RbRoot, erase, rb_find, rb_find_add, validate_rbtree


class ForwardedIrq(RbNode):
    """``struct irq_phys_map``: virtual id and physical GIC id."""

    __slots__ = ("phys", "virt")

    def __init__(self, virt: int, phys: int) -> None:
        super().__init__()
        self.virt = virt
        self.phys = phys

    def __repr__(self) -> str:
        return f"<{self.virt} -> {self.phys}>"


def _by_key(key: int, node: ForwardedIrq) -> int:
    return key - node.virt


def _by_node(new: ForwardedIrq, node: ForwardedIrq) -> int:
    return new.virt - node.virt


class PhysicalMap:
    """One tree; the VGIC has one for shared interrupts."""

    def __init__(self) -> None:
        self.root: RbRoot[ForwardedIrq] = RbRoot()

    def map(self, virt: int, phys: int) -> None:
        """Forward ``phys`` as ``virt``. EEXIST when ``virt`` is mapped, be it to the same ``phys``."""
        node = ForwardedIrq(virt, phys)
        existing = rb_find_add(self.root, node, _by_node)
        if existing is not None:
            raise KernelError(errno.EEXIST, f"virtual interrupt {virt} is forwarded already, from {existing.phys}")

    def unmap(self, virt: int, phys: int) -> None:
        """End it. ENOENT unless both match an entry."""
        node = rb_find(self.root, virt, _by_key)
        if node is None or node.phys != phys:
            raise KernelError(errno.ENOENT, f"virtual interrupt {virt} is not forwarded from {phys}")
        erase(node, self.root)

    def lookup(self, virt: int) -> int | None:
        """The physical id behind ``virt``, None when it is not forwarded."""
        node = rb_find(self.root, virt, _by_key)
        return None if node is None else node.phys

    def __iter__(self) -> Iterator[ForwardedIrq]:
        return iter(self.root)

    def clear(self) -> None:
        """Free the whole tree, with its VGIC."""
        for node in list(self.root):
            erase(node, self.root)

    def check(self) -> None:
        """Raise when the tree is no valid red-black tree, or one physical interrupt is behind two virtual ones."""
        validate_rbtree(self.root, key=lambda node: node.virt)
        physical = [node.phys for node in self.root]
        assert len(physical) == len(set(physical)), f"a physical interrupt is forwarded twice: {physical}"
