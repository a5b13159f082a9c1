"""The red-black tree; models lib/rbtree.c and include/linux/rbtree.h.

Users subclass `RbNode` (and call its ``__init__``). The tree links those very objects: it never uses their
``==`` or truth, and erasing one does not move another's payload. Names are Linux's, less the ``rb_`` that the
module implies: ``rbtree.erase(node, root)`` is ``rb_erase()``.

A tree of n nodes is at most ``2 * log2(n + 1)`` high: all paths down from the root meet equally many black
nodes and never two red ones in a row, so none is more than twice as long as another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Generic, Literal, Self, TypeVar

N = TypeVar("N", bound="RbNode")
K = TypeVar("K")
Side = Literal["left", "right"]
_OTHER: dict[Side, Side] = {"left": "right", "right": "left"}  # with this, no case is written out twice


class RbNode:
    """One node. As in Linux its ``parent`` is None at the top, and the node itself when it is in no tree."""

    __slots__ = ("is_red", "left", "parent", "right")
    parent: Self | None
    left: Self | None
    right: Self | None
    is_red: bool

    def __init__(self) -> None:
        clear_node(self)

    @property
    def linked(self) -> bool:
        """Whether the node is in a tree, or about to be: after `link_node`. Linux: not ``RB_EMPTY_NODE``."""
        return self.parent is not self

    def _child(self, side: Side) -> Self | None:
        return self.left if side == "left" else self.right

    def _side(self) -> Side:
        return "right" if self.parent is not None and self.parent.right is self else "left"

    def _adopt(self, side: Side, child: Self | None) -> None:
        setattr(self, side, child)
        if child is not None:
            child.parent = self

    def _deepest(self, side: Side) -> Self:
        node = self
        while (child := node._child(side)) is not None:
            node = child
        return node

    def _neighbour(self, side: Side) -> Self | None:
        if (child := self._child(side)) is not None:
            return child._deepest(_OTHER[side])
        node = self
        while node.parent is not None and node is node.parent._child(side):
            node = node.parent
        return node.parent if node.linked else None

    def _postorder(self) -> Iterator[Self]:
        for child in (self.left, self.right):
            if child is not None:
                yield from child._postorder()
        yield self


class RbRoot(Generic[N]):
    """A tree of ``N``, false when empty; ``node`` is its top node or None. Iteration is in order: a loop may
    erase the node that it was just given, but ends in RuntimeError when the one after it was erased.
    """

    def __init__(self) -> None:
        self.node: N | None = None

    def __bool__(self) -> bool:
        return self.node is not None

    def __iter__(self) -> Iterator[N]:
        return _walk(first(self), next)

    def __reversed__(self) -> Iterator[N]:
        return _walk(last(self), prev)

    def postorder(self) -> Iterator[N]:
        """Children before their parent. A loop may `clear_node` what it is given: to take the tree down."""
        return iter(()) if self.node is None else self.node._postorder()

    def _supplant(self, old: N, new: N | None) -> None:
        """Hang ``new`` where ``old`` hangs; their own children stay as they are."""
        if old.parent is not None:
            old.parent._adopt(old._side(), new)
        else:
            self.node = new
            if new is not None:
                new.parent = None

    def _rotate(self, node: N, side: Side) -> N:
        """Sink ``node`` towards ``side`` and return its other child, which rises into its place."""
        riser = node._child(_OTHER[side])
        assert riser is not None
        self._supplant(node, riser)
        node._adopt(_OTHER[side], riser._child(side))
        riser._adopt(side, node)
        # Trading colours as well keeps the place as it was for the nodes above. Every fixup wants just that.
        node.is_red, riser.is_red = riser.is_red, node.is_red
        return riser

    def _require(self, node: N) -> None:
        """ValueError where Linux would corrupt memory. The climb is no longer than the operation itself."""
        top, parent = node, node.parent
        while parent is not None and parent is not top:
            top, parent = parent, parent.parent
        if self.node is not top:
            raise ValueError(f"{node!r} is {'not in this' if node.linked else 'in no'} tree")


def _walk(node: N | None, step: Callable[[N], N | None]) -> Iterator[N]:
    while node is not None:
        if not node.linked:
            raise RuntimeError(f"{node!r} was erased while an iteration was about to reach it")
        following = step(node)  # before the yield, after which the node may be gone
        yield node
        node = following


def clear_node(node: RbNode) -> None:
    """Mark ``node`` as being in no tree (``RB_CLEAR_NODE``); taking it out of one is `erase`."""
    node.parent, node.left, node.right, node.is_red = node, None, None, False


def link_node(node: N, parent: N | None, side: Side) -> None:
    """Hang ``node`` below ``parent`` (None: at the top) for `insert_color`. ValueError if either is taken."""
    if node.linked:
        raise ValueError(f"{node!r} is in a tree already")
    if parent is not None:
        if not parent.linked or parent._child(side) is not None:
            raise ValueError(f"{parent!r} is in no tree, or has a {side} child already")
        parent._adopt(side, node)
    node.parent = parent
    node.is_red = True  # adds no black to any path: the worst that can be wrong now is two reds in a row


def insert_color(node: N, root: RbRoot[N]) -> None:
    """Rebalance after `link_node`. ValueError if ``node`` was not just linked, or not to this tree."""
    if node.parent is None and root.node is None:
        root.node = node
    root._require(node)
    if not node.is_red or node.left is not None or node.right is not None:
        raise ValueError(f"{node!r} was inserted before")
    while (parent := node.parent) is not None and parent.is_red:
        grandparent = parent.parent
        assert grandparent is not None  # a red node is not the root
        side = parent._side()
        uncle = grandparent._child(_OTHER[side])
        if uncle is None or not uncle.is_red:
            # Black uncle, inner grandchild: make it an outer one; the next rotation would swing it across.
            if node is not parent._child(side):
                root._rotate(parent, side)
            # Black uncle, outer grandchild: it and the grandparent become the red children of a black node.
            root._rotate(grandparent, _OTHER[side])
            return
        # Red uncle: the grandparent hands its black down to both. It may now clash with a red parent itself.
        parent.is_red = uncle.is_red = False
        grandparent.is_red = True
        node = grandparent
    if parent is None:
        node.is_red = False  # a black more for every path alike


def erase(node: N, root: RbRoot[N]) -> None:
    """Take ``node`` out of ``root`` and clear it. ValueError if it is in no tree, or in another one."""
    root._require(node)
    if node.left is not None and node.right is not None:
        # Two children: the successor has at most one. It leaves its own place, then takes over the node's.
        heir = node.right._deepest("left")
        erase(heir, root)
        replace_node(node, heir, root)
        return
    orphan = node.right if node.left is None else node.left
    parent, side, lost_black = node.parent, node._side(), not node.is_red
    root._supplant(node, orphan)
    clear_node(node)
    if orphan is not None:
        orphan.is_red = lost_black = False  # One child: it is red, below a black node, and makes up for it.
    while lost_black and parent is not None:  # by all paths through this side of the parent, and no others
        # Red sibling: its black child near us takes its place, and the parent becomes red.
        if _red(parent._child(_OTHER[side])):
            root._rotate(parent, side)
        sibling = parent._child(_OTHER[side])
        assert sibling is not None  # there is at least the black that this side lacks
        if _red(sibling.left) or _red(sibling.right):
            # Red near nephew only: it rises, and the sibling becomes the red far nephew.
            if not _red(sibling._child(_OTHER[side])):
                root._rotate(sibling, _OTHER[side])
            # Red far nephew: the parent sinks as the black we lack; the nephew replaces the black that rises.
            nephew = root._rotate(parent, side)._child(_OTHER[side])
            assert nephew is not None
            nephew.is_red = False
            return
        # Black nephews: the sibling's side gives up a black too, and the parent, if red, makes up for both. A
        # black parent leaves its own side of the tree short; or, at the top, all paths alike.
        sibling.is_red = True
        lost_black, parent.is_red = not parent.is_red, False
        side, parent = parent._side(), parent.parent


def _red(node: RbNode | None) -> bool:
    return node is not None and node.is_red


def replace_node(victim: N, new: N, root: RbRoot[N]) -> None:
    """Put ``new``, which must sort like ``victim``, in its place without rebalancing; clear ``victim``."""
    root._require(victim)
    if new.linked:
        raise ValueError(f"{new!r} is in a tree already")
    root._supplant(victim, new)
    new._adopt("left", victim.left)
    new._adopt("right", victim.right)
    new.is_red = victim.is_red
    clear_node(victim)


def first(root: RbRoot[N]) -> N | None:
    return None if root.node is None else root.node._deepest("left")


def last(root: RbRoot[N]) -> N | None:
    return None if root.node is None else root.node._deepest("right")


def next(node: N) -> N | None:
    """The node after ``node`` in order. None after the last one, and for a node in no tree."""
    return node._neighbour("right")


def prev(node: N) -> N | None:
    """The node before ``node`` in order. None before the first one, and for a node in no tree."""
    return node._neighbour("left")


def rb_find(root: RbRoot[N], key: K, cmp: Callable[[K, N], int]) -> N | None:
    """The node for which ``cmp(key, node)`` is 0; negative says that the key comes before the node."""
    node = root.node
    while node is not None and (order := cmp(key, node)) != 0:
        node = node.left if order < 0 else node.right
    return node


def rb_find_add(root: RbRoot[N], node: N, cmp: Callable[[N, N], int]) -> N | None:
    """The node for which ``cmp(node, other)`` is 0. If there is none, add ``node`` and return None."""
    if node.linked:
        raise ValueError(f"{node!r} is in a tree already")
    parent, here, order = root.node, root.node, 0
    while here is not None:
        if (order := cmp(node, here)) == 0:
            return here
        parent, here = here, here.left if order < 0 else here.right
    link_node(node, parent, "left" if order < 0 else "right")
    insert_color(node, root)
    return None


class RbTreeError(ValueError):
    """A tree is damaged: ``node`` breaks ``rule``, one of those that `validate_rbtree` spells out."""

    def __init__(self, node: RbNode, rule: str) -> None:
        super().__init__(f"{node!r} breaks the rule: {rule}")
        self.node = node
        self.rule = rule


def validate_rbtree(root: RbRoot[N], key: Callable[[N], Any] | None = None) -> None:
    """Raise `RbTreeError` unless this is a red-black tree, ``key`` ascending. Named after drgn's helper."""

    def check(holds: bool, node: N, rule: str) -> None:
        if not holds:
            raise RbTreeError(node, rule)

    def black_height(node: N | None, parent: N | None, depth: int) -> int:
        if node is None:
            return 0
        check(node.parent is parent, node, "the parent link leads to the parent")  # so loops are not entered
        check(node.left is None or node.left is not node.right, node, "the two children are distinct")
        check(parent is not None or not node.is_red, node, "the root is black")
        check(not (node.is_red and _red(parent)), node, "a red node has no red child")
        check(depth < 128, node, "no tree that fits into memory is this high")  # before Python's stack ends
        left, right = (black_height(child, node, depth + 1) for child in (node.left, node.right))
        check(left == right, node, "both sides have the same black height")
        return left + (not node.is_red)

    black_height(root.node, None, 0)
    if key is not None:
        for before, after in pairwise(root):
            check(key(before) < key(after), after, "keys ascend")
