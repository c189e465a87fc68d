"""Nodes of one kind in a tree."""

from typing import Any

import jax


def nodes(tree: Any, kind: Any) -> list[Any]:
    """All nodes whose type is `kind` (or one of several), wherever they are."""

    def is_kind(node):
        return isinstance(node, kind)

    return [node for node in jax.tree.leaves(tree, is_leaf=is_kind) if is_kind(node)]
