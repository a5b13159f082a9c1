"""The red-black tree; models lib/rbtree.c and include/linux/rbtree.h.

The tree is intrusive: users subclass `RbNode`, and the tree links those very objects, so erasing one node never
moves another one's payload. The names are Linux's less the ``rb_`` that the module name already says:
``rbtree.erase(node, root)`` is ``rb_erase()``.

A tree of n nodes is at most ``2 * log2(n + 1)`` high: every path from the root meets the same number of black
nodes, and no two red ones in a row, so that no path is more than twice as long as another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Generic, Literal, Self, TypeVar

__all__ = [
    "RbNode", "RbRoot", "RbTreeError", "Rule", "Side", "clear_node", "erase", "first", "first_postorder",
    "insert_color", "last", "link_node", "next", "next_postorder", "prev", "rb_find", "rb_find_add", "render",
    "replace_node", "validate_rbtree",
]  # fmt: skip

N = TypeVar("N", bound="RbNode")
K = TypeVar("K")
Side = Literal["left", "right"]


class RbNode:
    """One node, to be subclassed; a subclass with an ``__init__`` of its own calls this one.

    As in Linux a node that is its own parent is in no tree (``RB_EMPTY_NODE``); that of a root is None. The tree
    compares nodes by identity alone, so a subclass may define ``==`` and truth as it likes.
    """

    __slots__ = ("is_red", "left", "parent", "right")
    parent: Self | None
    left: Self | None
    right: Self | None
    is_red: bool

    def __init__(self) -> None:
        clear_node(self)

    @property
    def linked(self) -> bool:
        """Whether the node is in a tree, or about to be: after `link_node`."""
        return self.parent is not self


class RbRoot(Generic[N]):
    """A tree of ``N``; ``node`` (None when empty) is its top node. False when empty.

    Iteration is in order. The node that a loop was just given may be erased; erasing the one after it ends the
    loop with RuntimeError.
    """

    __slots__ = ("node",)

    def __init__(self) -> None:
        self.node: N | None = None

    def __bool__(self) -> bool:
        return self.node is not None

    def __iter__(self) -> Iterator[N]:
        return _walk(first(self), next)

    def __reversed__(self) -> Iterator[N]:
        return _walk(last(self), prev)

    def postorder(self) -> Iterator[N]:
        """Children before their parent: to take a tree down with `clear_node`, which does not rebalance."""
        return _walk(first_postorder(self), next_postorder)


def _walk(node: N | None, step: Callable[[N], N | None]) -> Iterator[N]:
    while node is not None:
        if not node.linked:
            raise RuntimeError(f"{node!r} was erased while an iteration was about to reach it")
        following = step(node)  # before the yield, after which the node may be gone
        yield node
        node = following


def clear_node(node: RbNode) -> None:
    """Mark ``node`` as being in no tree (``RB_CLEAR_NODE``), without taking it out of one: that is `erase`."""
    node.parent = node
    node.left = node.right = None
    node.is_red = False


# Sides are spelled out below, each case once and not again in its mirror image.


def _other(side: Side) -> Side:
    return "right" if side == "left" else "left"


def _child(node: N, side: Side) -> N | None:
    return node.left if side == "left" else node.right


def _set_child(node: N, side: Side, child: N | None) -> None:
    if side == "left":
        node.left = child
    else:
        node.right = child
    if child is not None:
        child.parent = node


def _side_of(node: N, parent: N) -> Side:
    return "left" if parent.left is node else "right"


def _supplant(old: N, new: N | None, root: RbRoot[N]) -> None:
    """Hang ``new`` where ``old`` hangs; their own children stay as they are."""
    parent = old.parent
    if parent is not None:
        _set_child(parent, _side_of(old, parent), new)
        return
    root.node = new
    if new is not None:
        new.parent = None


def _rotate(node: N, side: Side, root: RbRoot[N]) -> None:
    """Sink ``node`` towards ``side``; its child from the other side rises into its place. Colours stay."""
    riser = _child(node, _other(side))
    assert riser is not None
    _supplant(node, riser, root)
    _set_child(node, _other(side), _child(riser, side))
    _set_child(riser, side, node)


def _red(node: RbNode | None) -> bool:
    return node is not None and node.is_red  # the absent children count as black


def _require_in(node: N, root: RbRoot[N]) -> None:
    """ValueError where Linux would corrupt memory; the climb costs no more than the operation itself."""
    if not node.linked:
        raise ValueError(f"{node!r} is in no tree")
    top, parent = node, node.parent
    while parent is not None:
        top, parent = parent, parent.parent
    if root.node is not top:
        raise ValueError(f"{node!r} is in another tree")


def link_node(node: N, parent: N | None, side: Side) -> None:
    """Hang ``node`` below ``parent`` as a leaf, or make it a root (None; then ``side`` says nothing).

    `insert_color` must follow, which also tells the root. ValueError if the node or the place is taken.
    """
    if node.linked:
        raise ValueError(f"{node!r} is in a tree already")
    if parent is not None and not parent.linked:
        raise ValueError(f"parent {parent!r} is in no tree")
    if parent is not None and _child(parent, side) is not None:
        raise ValueError(f"{parent!r} has a {side} child already")
    # Red, so that no path gets one more black node than the others: at worst there are now two reds in a row.
    node.parent, node.left, node.right, node.is_red = parent, None, None, True
    if parent is not None:
        _set_child(parent, side, node)


def insert_color(node: N, root: RbRoot[N]) -> None:
    """Rebalance ``root`` after `link_node`. ValueError if ``node`` was not just linked, or not to this tree."""
    if node.linked and not (node.is_red and node.left is None and node.right is None):
        raise ValueError(f"{node!r} is in a tree already")
    if node.parent is None:
        if root.node is not None:
            raise ValueError(f"{node!r} was linked as a root, but the tree has one: {root.node!r}")
        root.node = node
    _require_in(node, root)
    while True:  # node is red, and nothing is wrong in the tree but that its parent may be red too
        parent = node.parent
        if parent is None:
            node.is_red = False  # one more black node on every path alike
            return
        if not parent.is_red:
            return
        grandparent = parent.parent
        assert grandparent is not None  # a red node is never the root
        side = _side_of(parent, grandparent)
        uncle = _child(grandparent, _other(side))
        if uncle is not None and uncle.is_red:
            # Red uncle: hand the grandparent's black down to both its children. It is red now, and may in turn
            # have a red parent, two levels up.
            parent.is_red = uncle.is_red = False
            grandparent.is_red = True
            node = grandparent
            continue
        if node is not _child(parent, side):
            # Black uncle, inner grandchild: turn it into an outer one, as the last rotation would only move an
            # inner one across, red pair and all.
            _rotate(parent, side, root)
            parent = node
        # Black uncle, outer grandchild: the red parent rises and swaps colours with the grandparent. The top of
        # this subtree is black as before, so nothing above it changes.
        _rotate(grandparent, _other(side), root)
        parent.is_red, grandparent.is_red = False, True
        return


def erase(node: N, root: RbRoot[N]) -> None:
    """Take ``node`` out of ``root`` and clear it. ValueError if it is in no tree, or in another one."""
    _require_in(node, root)
    if node.left is not None and node.right is not None:
        # Two children: the successor, which has no left child, moves into the node's place and takes its colour.
        # What is missing is then the successor's old colour, at the successor's old place.
        heir = next(node)
        assert heir is not None
        lost_black, orphan = not heir.is_red, heir.right
        if heir is node.right:
            short, side = heir, "right"
        else:
            assert heir.parent is not None
            short, side = heir.parent, "left"
            _set_child(short, side, orphan)
            _set_child(heir, "right", node.right)
        _set_child(heir, "left", node.left)
        _supplant(node, heir, root)
        heir.is_red = node.is_red
        hole: tuple[N, Side] | None = (short, side)
    else:
        lost_black = not node.is_red
        orphan = node.right if node.left is None else node.left
        hole = None if node.parent is None else (node.parent, _side_of(node, node.parent))
        _supplant(node, orphan, root)
    clear_node(node)
    if orphan is not None:
        orphan.is_red = False  # an only child is always red, its parent black: it makes up for the loss
    elif lost_black and hole is not None:
        _erase_color(*hole, root)


def _erase_color(parent: N, side: Side, root: RbRoot[N]) -> None:
    """Rebalance when the paths through ``side`` of ``parent`` have one black node less than all others."""
    far_side = _other(side)
    while True:
        sibling = _child(parent, far_side)
        assert sibling is not None  # it holds at least the black node that this side lacks
        if sibling.is_red:
            # Red sibling: let it rise, so that a black one (its child) stands there, and the parent is red.
            _rotate(parent, side, root)
            sibling.is_red, parent.is_red = False, True
            sibling = _child(parent, far_side)
            assert sibling is not None
        near, far = _child(sibling, side), _child(sibling, far_side)
        if not _red(near) and not _red(far):
            # No red nephew: take a black from the sibling's side as well. A red parent gives it back to both;
            # else the whole subtree is short now, which at the root means that no path is.
            sibling.is_red = True
            above = parent.parent
            if parent.is_red or above is None:
                parent.is_red = False
                return
            side = _side_of(parent, above)
            parent, far_side = above, _other(side)
            continue
        if near is not None and not _red(far):
            # Red near nephew only: let it rise above the sibling, which becomes the red far nephew.
            _rotate(sibling, far_side, root)
            near.is_red, sibling.is_red = False, True
            sibling, far = near, sibling
        # Red far nephew: the sibling rises and takes the parent's colour, the parent goes black to the short
        # side, and the nephew goes black to replace the sibling on its own.
        assert far is not None
        _rotate(parent, side, root)
        sibling.is_red, parent.is_red, far.is_red = parent.is_red, False, False
        return
