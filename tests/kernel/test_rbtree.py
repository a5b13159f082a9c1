"""The red-black tree against a sorted dict and the textbook's shapes; its validator against damage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from kvmvfio_emu.kernel.lib import rbtree
from kvmvfio_emu.kernel.lib.rbtree import RbNode, RbRoot, RbTreeError, rb_find, rb_find_add, validate_rbtree

KEYS = st.integers(0, 60)


class Node(RbNode):
    """False, and equal to everything: a tree that goes by truth or equality and not by identity gets lost."""

    __slots__ = ("key",)

    def __init__(self, key: float) -> None:
        super().__init__()
        self.key = key

    def __repr__(self) -> str:
        return f"Node({self.key})"

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def key_of(node: Node) -> float:
    return node.key


def cmp_key(key: float, node: Node) -> int:
    return (key > node.key) - (key < node.key)


def cmp_node(node: Node, other: Node) -> int:
    return cmp_key(node.key, other)


def find(root: RbRoot[Node], key: float) -> Node:
    node = rb_find(root, key, cmp_key)
    assert node is not None
    return node


def build(keys: Iterable[float]) -> RbRoot[Node]:
    root: RbRoot[Node] = RbRoot()
    for key in keys:
        assert rb_find_add(root, Node(key), cmp_node) is None
    return root


def keys(nodes: Iterable[Node]) -> list[float]:
    return [node.key for node in nodes]


def same(nodes: Iterable[Node | None], others: Iterable[Node | None]) -> bool:
    """Whether these are the same objects in the same order."""
    return [id(node) for node in nodes] == [id(node) for node in others]


def height(node: Node | None) -> int:
    return 0 if node is None else 1 + max(height(node.left), height(node.right))


def shape(node: Node | None) -> str:
    """``key colour(left right)``, for example ``2b(1r 3r)``; an absent child is ``.``."""
    if node is None:
        return "."
    text = f"{node.key}{'r' if node.is_red else 'b'}"
    if node.left is None and node.right is None:
        return text
    return f"{text}({shape(node.left)} {shape(node.right)})"


# --- against a model ---------------------------------------------------------------------------------------


class AgainstSortedDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root: RbRoot[Node] = RbRoot()
        self.model: SortedDict[float, Node] = SortedDict()

    def pick(self, data: st.DataObject) -> float:
        key: float = data.draw(st.sampled_from(list(self.model)))
        return key

    @rule(key=KEYS)
    def add(self, key: int) -> None:
        node = Node(key)
        found = rb_find_add(self.root, node, cmp_node)
        assert found is self.model.get(key)
        assert node.linked == (key not in self.model)
        self.model.setdefault(key, node)

    @rule(start=KEYS, count=st.integers(1, 12))
    def add_run(self, start: int, count: int) -> None:
        for key in range(start, start + count):
            self.add(key)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def add_duplicate(self, data: st.DataObject) -> None:
        key = self.pick(data)
        node = Node(key)
        assert rb_find_add(self.root, node, cmp_node) is self.model[key]
        assert not node.linked

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        node = self.model.pop(self.pick(data))
        rbtree.erase(node, self.root)
        assert not node.linked
        assert rbtree.next(node) is rbtree.prev(node) is None

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        key = self.pick(data)
        old, new = self.model[key], Node(key)
        before = shape(self.root.node)
        rbtree.replace_node(old, new, self.root)
        assert not old.linked
        assert shape(self.root.node) == before
        self.model[key] = new

    @rule(residue=st.integers(0, 3))
    def erase_in_a_loop(self, residue: int) -> None:
        met = []
        for node in self.root:
            met.append(node.key)
            if node.key % 4 == residue:
                rbtree.erase(node, self.root)
        assert met == list(self.model)
        for key in met:
            if key % 4 == residue:
                del self.model[key]

    @rule(key=KEYS)
    def lookup(self, key: int) -> None:
        assert rb_find(self.root, key, cmp_key) is self.model.get(key)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def neighbours(self, data: st.DataObject) -> None:
        key = self.pick(data)
        node, nodes, at = self.model[key], [None, *self.model.values(), None], self.model.index(key) + 1
        assert rbtree.prev(node) is nodes[at - 1]
        assert rbtree.next(node) is nodes[at + 1]

    @invariant()
    def is_red_black(self) -> None:
        validate_rbtree(self.root, key_of)

    @invariant()
    def same_nodes_both_ways(self) -> None:
        nodes = list(self.model.values())
        assert same(self.root, nodes)
        assert same(reversed(self.root), nodes[::-1])
        assert rbtree.first(self.root) is (nodes[0] if nodes else None)
        assert rbtree.last(self.root) is (nodes[-1] if nodes else None)
        assert bool(self.root) == bool(nodes)

    @invariant()
    def postorder_is_every_node_after_its_children(self) -> None:
        nodes = list(self.root.postorder())
        at = {id(node): i for i, node in enumerate(nodes)}
        assert sorted(keys(nodes)) == list(self.model)
        for node in nodes:
            assert all(at[id(child)] < at[id(node)] for child in (node.left, node.right) if child is not None)

    @invariant()
    def is_low(self) -> None:
        assert height(self.root.node) <= 2 * math.log2(len(self.model) + 1)


TestAgainstSortedDict = AgainstSortedDict.TestCase
TestAgainstSortedDict.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("order", [lambda n: range(n), lambda n: range(n, 0, -1)], ids=["up", "down"])
def test_height_bound_holds_for_sorted_input(order: Callable[[int], range]) -> None:
    root: RbRoot[Node] = RbRoot()
    for count, key in enumerate(order(3000), start=1):
        rb_find_add(root, Node(key), cmp_node)
        if count % 100 == 0:
            assert height(root.node) <= 2 * math.log2(count + 1)
    validate_rbtree(root, key_of)


def test_every_small_tree_survives_every_erase() -> None:
    shapes = set()
    for order in permutations(range(7)):
        root = build(order)
        if shape(root.node) in shapes:
            continue
        shapes.add(shape(root.node))
        for victim in range(7):
            root = build(order)
            rbtree.erase(find(root, victim), root)
            validate_rbtree(root, key_of)
            assert keys(root) == [key for key in range(7) if key != victim]
    assert len(shapes) > 10


@given(st.lists(st.integers(0, 400), unique=True, max_size=150), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_large_trees_stay_valid_down_to_the_last_erase(inserted: list[int], random: object) -> None:
    root = build(inserted)
    left = set(inserted)
    for key in random.sample(inserted, len(inserted)):  # type: ignore[attr-defined]
        rbtree.erase(find(root, key), root)
        left.remove(key)
        validate_rbtree(root, key_of)
        assert keys(root) == sorted(left)
    assert root.node is None


# --- the fixups, by the shapes that the textbook gives -----------------------------------------------------


@pytest.mark.parametrize(
    ("inserted", "expected"),
    [
        ([2], "2b"),
        ([2, 1, 3], "2b(1r 3r)"),
        ([1, 2, 3], "2b(1r 3r)"),  # outer grandchild, one side and the other
        ([3, 2, 1], "2b(1r 3r)"),
        ([1, 3, 2], "2b(1r 3r)"),  # inner grandchild, one side and the other
        ([3, 1, 2], "2b(1r 3r)"),
        ([2, 1, 3, 4], "2b(1b 3b(. 4r))"),  # red uncle, below the root
        ([1, 2, 3, 4, 5, 6, 7, 8], "4b(2r(1b 3b) 6r(5b 7b(. 8r)))"),  # red uncle, then a rotation above it
    ],
)
def test_insert_gives_the_textbook_shape(inserted: list[int], expected: str) -> None:
    assert shape(build(inserted).node) == expected


EIGHT = "4b(2r(1b 3b) 6r(5b 7b(. 8r)))"


@pytest.mark.parametrize(
    ("victims", "expected"),
    [
        ([8], "4b(2r(1b 3b) 6r(5b 7b))"),  # a red leaf: nothing to make up for
        ([7], "4b(2r(1b 3b) 6r(5b 8b))"),  # one child, which goes black
        ([6], "4b(2r(1b 3b) 7r(5b 8b))"),  # two children; the successor has a child
        ([5], "4b(2r(1b 3b) 7r(6b 8b))"),  # red far nephew
        ([8, 5], "4b(2r(1b 3b) 6b(. 7r))"),  # black nephews, red parent
        ([4], "5b(2r(1b 3b) 7r(6b 8b))"),  # two children at the root; the successor leaves a black gap
        ([1], "4b(2b(. 3r) 6r(5b 7b(. 8r)))"),
        ([1, 3, 2], "6b(4b(. 5r) 7b(. 8r))"),  # red sibling, then black nephews
    ],
)
def test_erase_gives_the_textbook_shape(victims: list[int], expected: str) -> None:
    root = build(range(1, 9))
    assert shape(root.node) == EIGHT
    for victim in victims:
        rbtree.erase(find(root, victim), root)
    assert shape(root.node) == expected


def test_erase_with_a_red_near_nephew_only() -> None:
    root = build([2, 1, 4, 3])
    assert shape(root.node) == "2b(1b 4b(3r .))"
    rbtree.erase(find(root, 1), root)
    assert shape(root.node) == "3b(2b 4b)"


def test_erase_with_two_red_nephews_goes_by_the_far_one() -> None:
    root = build([2, 1, 4, 3, 5])
    assert shape(root.node) == "2b(1b 4b(3r 5r))"
    rbtree.erase(find(root, 1), root)
    assert shape(root.node) == "4b(2b(. 3r) 5b)"


def test_erase_with_black_nephews_up_to_the_root() -> None:
    root = build([2, 1, 3, 4])
    rbtree.erase(find(root, 4), root)
    assert shape(root.node) == "2b(1b 3b)"
    rbtree.erase(find(root, 1), root)
    assert shape(root.node) == "2b(. 3r)"


# --- the calls of a tree, one by one -----------------------------------------------------------------------


def test_link_then_colour_by_hand() -> None:
    root: RbRoot[Node] = RbRoot()
    top, low, high = Node(2), Node(1), Node(3)
    rbtree.link_node(top, None, "left")
    rbtree.insert_color(top, root)
    rbtree.link_node(low, top, "left")
    rbtree.insert_color(low, root)
    rbtree.link_node(high, top, "right")
    rbtree.insert_color(high, root)
    assert same(root, [low, top, high])
    assert shape(root.node) == "2b(1r 3r)"


def test_an_empty_tree() -> None:
    root: RbRoot[Node] = RbRoot()
    assert not root
    assert list(root) == list(reversed(root)) == list(root.postorder()) == []
    assert rbtree.first(root) is rbtree.last(root) is rb_find(root, 1, cmp_key) is None
    validate_rbtree(root, key_of)


def test_a_new_node_is_in_no_tree_and_an_erased_one_is_as_new() -> None:
    root, node = build([1, 2, 3]), Node(4)
    assert not node.linked
    for _ in range(2):
        assert rb_find_add(root, node, cmp_node) is None
        assert node.linked
        rbtree.erase(node, root)
        assert not node.linked
        assert (node.left, node.right, node.is_red) == (None, None, False)


def test_postorder_lets_a_loop_clear_what_it_visits() -> None:
    root = build(range(1, 9))
    met = []
    for node in root.postorder():
        met.append(node.key)
        rbtree.clear_node(node)
    assert met == [1, 3, 2, 5, 8, 7, 6, 4]


def test_iteration_says_so_when_its_next_node_was_erased() -> None:
    root = build(range(1, 9))
    walk = iter(root)
    assert next(walk).key == 1
    rbtree.erase(find(root, 2), root)
    with pytest.raises(RuntimeError, match=r"Node\(2\) was erased"):
        next(walk)


@pytest.mark.parametrize("again", ["erase", "replace"])
def test_a_node_leaves_a_tree_only_once(again: str) -> None:
    root = build([1, 2, 3])
    node = find(root, 2)
    rbtree.erase(node, root)
    before = shape(root.node)
    with pytest.raises(ValueError, match=r"Node\(2\) is in no tree"):
        rbtree.erase(node, root) if again == "erase" else rbtree.replace_node(node, Node(2), root)
    assert shape(root.node) == before


@pytest.mark.parametrize("key", [1, 2, 3])
def test_a_node_is_inserted_only_once(key: int) -> None:
    root, other = build([2, 1, 3]), build([4])
    node = find(root, key)
    with pytest.raises(ValueError, match="in a tree already"):
        rb_find_add(root, node, cmp_node)
    with pytest.raises(ValueError, match="in a tree already"):
        rb_find_add(other, node, cmp_node)
    with pytest.raises(ValueError, match="in a tree already"):
        rbtree.link_node(node, find(other, 4), "left")
    with pytest.raises(ValueError, match="in a tree already"):
        rbtree.replace_node(find(other, 4), node, other)
    assert (shape(root.node), shape(other.node)) == ("2b(1r 3r)", "4b")


def test_insert_color_wants_a_node_that_was_just_linked_here() -> None:
    root, other = build([2, 1, 3, 4]), build([5])
    with pytest.raises(ValueError, match="in no tree"):
        rbtree.insert_color(Node(9), root)
    with pytest.raises(ValueError, match="inserted before"):
        rbtree.insert_color(find(root, 3), root)
    second_top = Node(9)
    rbtree.link_node(second_top, None, "left")
    with pytest.raises(ValueError, match="not in this tree"):
        rbtree.insert_color(second_top, root)
    elsewhere = Node(6)
    rbtree.link_node(elsewhere, find(other, 5), "right")
    with pytest.raises(ValueError, match="not in this tree"):
        rbtree.insert_color(elsewhere, root)
    assert shape(root.node) == "2b(1b 3b(. 4r))"


def test_link_node_takes_no_place_that_is_taken() -> None:
    root = build([2, 1, 3])
    with pytest.raises(ValueError, match="left child already"):
        rbtree.link_node(Node(0), find(root, 2), "left")
    with pytest.raises(ValueError, match="in no tree"):
        rbtree.link_node(Node(0), Node(5), "left")
    assert shape(root.node) == "2b(1r 3r)"


def test_a_node_of_another_tree_is_refused() -> None:
    root, other = build([1, 2, 3]), build([1, 2, 3])
    with pytest.raises(ValueError, match="not in this tree"):
        rbtree.erase(find(other, 2), root)
    with pytest.raises(ValueError, match="not in this tree"):
        rbtree.replace_node(find(other, 1), Node(1), root)
    assert keys(root) == keys(other) == [1, 2, 3]


# --- the validator, against damage -------------------------------------------------------------------------


def eight() -> tuple[RbRoot[Node], list[Node]]:
    """The tree `EIGHT`, and its nodes by key (with a spare 0th)."""
    root = build(range(1, 9))
    validate_rbtree(root, key_of)
    return root, [Node(0), *root]


def refused(root: RbRoot[Node], node: Node, rule: str, key: Callable[[Node], float] | None = key_of) -> None:
    with pytest.raises(RbTreeError) as caught:
        validate_rbtree(root, key)
    assert caught.value.rule == rule
    assert caught.value.node is node
    assert repr(node) in str(caught.value)
    assert rule in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_validator_finds_a_red_root() -> None:
    root = build([1])
    top = find(root, 1)
    top.is_red = True
    refused(root, top, "the root is black")


def test_validator_finds_a_red_child_of_a_red_node() -> None:
    root, node = eight()
    ninth = Node(9)
    rbtree.link_node(ninth, node[8], "right")  # and no insert_color: all black heights are still right
    refused(root, ninth, "a red node has no red child")


def test_validator_finds_unequal_black_heights() -> None:
    root, node = eight()
    node[8].is_red = False
    refused(root, node[7], "both sides have the same black height")


def test_validator_finds_a_black_height_that_differs_higher_up() -> None:
    root, node = eight()
    node[2].is_red = False
    refused(root, node[4], "both sides have the same black height")


@pytest.mark.parametrize("to", [None, 1, 3, 6])
def test_validator_finds_a_wrong_parent_link(to: int | None) -> None:
    root, node = eight()
    node[3].parent = None if to is None else node[to]
    refused(root, node[3], "the parent link leads to the parent")


def test_validator_finds_a_parent_above_the_root() -> None:
    root, node = eight()
    node[4].parent = Node(9)
    refused(root, node[4], "the parent link leads to the parent")


def test_validator_finds_a_cleared_node_in_the_tree() -> None:
    root, node = eight()
    rbtree.clear_node(node[8])
    refused(root, node[8], "the parent link leads to the parent")


@pytest.mark.parametrize("top_knows", [False, True])
def test_validator_ends_on_a_loop(top_knows: bool) -> None:
    root, node = eight()
    node[8].right = node[4]
    node[4].parent = node[8] if top_knows else None
    refused(root, node[4], "the parent link leads to the parent")


def test_validator_finds_a_child_on_both_sides() -> None:
    root, node = eight()
    node[7].left = node[8]
    refused(root, node[7], "the two children are distinct", key=None)


def test_validator_ends_on_a_list_longer_than_the_stack() -> None:
    root = build([0])
    node = find(root, 0)
    for key in range(1, 5000):
        below = Node(key)
        rbtree.link_node(below, node, "right")
        below.is_red = False
        node = below
    with pytest.raises(RbTreeError, match="this high"):
        validate_rbtree(root, key_of)


@pytest.mark.parametrize(
    ("at", "key", "found_at"),
    [
        (3, 1.5, 3),  # below its parent, on the parent's right
        (3, 4.5, 4),  # right for its parent, but beyond the root
        (3, 4, 4),  # equal keys
        (8, 0, 8),
    ],
)
def test_validator_finds_keys_out_of_order(at: int, key: float, found_at: int) -> None:
    root, node = eight()
    node[at].key = key
    refused(root, node[found_at], "keys ascend")
    validate_rbtree(root)  # which was not told what the keys are


@given(st.lists(KEYS, unique=True, min_size=1), st.data())
def test_validator_finds_any_one_node_painted_the_other_colour(inserted: list[int], data: st.DataObject) -> None:
    root = build(inserted)
    node = find(root, data.draw(st.sampled_from(inserted)))
    node.is_red = not node.is_red
    with pytest.raises(RbTreeError):
        validate_rbtree(root, key_of)


@given(st.lists(KEYS, unique=True, min_size=2), st.data())
def test_validator_finds_any_two_keys_swapped(inserted: list[int], data: st.DataObject) -> None:
    root = build(inserted)
    pair = data.draw(st.lists(st.sampled_from(inserted), min_size=2, max_size=2, unique=True))
    one, other = (find(root, key) for key in pair)
    one.key, other.key = other.key, one.key
    with pytest.raises(RbTreeError, match="keys ascend"):
        validate_rbtree(root, key_of)
