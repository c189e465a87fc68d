"""The paper's Algorithm 1 and its neighbors, written literally, in float64 NumPy.

Nothing is rearranged here: both gradients of an inner step are computed, 2k of them a
step, and fast weights are weights. Trees are flat dictionaries from names to arrays;
a name that ends in `bias` is a bias. `grad(p, i)` is the gradient of minibatch i at p.
"""

import numpy as np


def tree_map(f, *trees):
    return {name: f(*(tree[name] for tree in trees)) for name in trees[0]}


def norm(tree):
    return np.sqrt(sum(np.sum(x * x) for x in tree.values()))


# Base optimizers: step(g, state, f) -> (update, state).


class SGD:
    """PyTorch's SGD: weight decay goes into the gradient, momentum has no dampening."""

    def __init__(self, lr, momentum, weight_decay, nesterov=False):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.nesterov = nesterov

    def init(self, params):
        return tree_map(np.zeros_like, params)

    def step(self, g, v, f):
        g = tree_map(lambda g, f: g + self.weight_decay * f, g, f)
        v = tree_map(lambda v, g: self.momentum * v + g, v, g)
        if self.nesterov:
            u = tree_map(lambda v, g: -self.lr * (g + self.momentum * v), v, g)
            return u, v
        return tree_map(lambda v: -self.lr * v, v), v


class Adam:
    def __init__(self, lr, b1=0.9, b2=0.999, eps=1e-8):
        self.lr, self.b1, self.b2, self.eps = lr, b1, b2, eps

    def init(self, params):
        zeros = tree_map(np.zeros_like, params)
        return 0, zeros, zeros

    def step(self, g, state, f):
        del f
        t, m, v = state
        t = t + 1
        m = tree_map(lambda m, g: self.b1 * m + (1 - self.b1) * g, m, g)
        v = tree_map(lambda v, g: self.b2 * v + (1 - self.b2) * g * g, v, g)

        def update(m, v):
            m_hat, v_hat = m / (1 - self.b1**t), v / (1 - self.b2**t)
            return -self.lr * m_hat / (np.sqrt(v_hat) + self.eps)

        return tree_map(update, m, v), (t, m, v)


# Directions of unit radius.


def sam(g, p):
    del p
    scale = 1 / (norm(g) + 1e-16)
    return tree_map(lambda g: scale * g, g)


def asam(eta):
    def direction(g, p):
        t = {
            name: np.ones_like(x) if name.endswith("bias") else np.abs(x) + eta
            for name, x in p.items()
        }
        tg = tree_map(lambda t, g: t * g, t, g)
        scale = 1 / (norm(tg) + 1e-16)
        return tree_map(lambda t, tg: scale * t * tg, t, tg)

    return direction


class Friendly:
    """Uphill along g − σm. `follow` moves m, once a step, by the clean gradient."""

    def __init__(self, sigma, decay):
        self.sigma, self.decay, self.m = sigma, decay, None

    def __call__(self, g, p):
        if self.m is not None:
            g = tree_map(lambda g, m: g - self.sigma * m, g, self.m)
        return sam(g, p)

    def follow(self, g):
        m = tree_map(np.zeros_like, g) if self.m is None else self.m
        self.m = tree_map(lambda m, g: self.decay * m + (1 - self.decay) * g, m, g)


# What one-step methods descend along, of the clean gradient and those of the climb.


def last(g, gradients):
    del g
    return gradients[-1]


def mean(g, gradients):
    del g
    return tree_map(lambda *g: sum(g) / len(gradients), *gradients)


def surrogate_gap(alpha):
    """GSAM: the perturbed gradient less α of the clean one's part orthogonal to it."""

    def combine(g, gradients):
        g_s = gradients[-1]
        inner = sum(np.sum(g[n] * g_s[n]) for n in g)
        parallel = tree_map(lambda x: inner / norm(g_s) ** 2 * x, g_s)
        orthogonal = tree_map(np.subtract, g, parallel)
        return tree_map(lambda x, o: x - alpha * o, g_s, orthogonal)

    return combine


def weighted(gamma):
    """WSAM, coupled: the gradient of L + γ/(1−γ) (L_s − L)."""

    def combine(g, gradients):
        sharpness = tree_map(np.subtract, gradients[-1], g)
        return tree_map(lambda g, s: g + gamma / (1 - gamma) * s, g, sharpness)

    return combine


# One step of each member: (parameters, base state) -> (parameters, base state).


def lookbehind(phi, a, grad, base, direction, rho, k, alpha, pullback="none"):
    """Algorithm 1. `alpha` is a number, "global" or "per tensor"."""
    before = a
    if k == 0:
        u, a = base.step(grad(phi, 0), a, phi)
        return tree_map(np.add, phi, u), a
    p = phi
    f = phi
    first = None
    for i in range(k):
        d = direction(grad(p, i), p)
        p = tree_map(lambda p, d: p + rho * d, p, d)
        u, a = base.step(grad(p, i), a, f)
        f = tree_map(np.add, f, u)
        if i == 0:
            first = f
    displacement = tree_map(np.subtract, f, phi)
    alphas = _alphas(alpha, tree_map(np.subtract, first, phi), displacement)
    if pullback == "pullback":  # of SGD's velocity
        a = tree_map(lambda v, w, s: v + s * (w - v), before, a, alphas)
    elif pullback == "reset":
        a = tree_map(np.zeros_like, a)
    return tree_map(lambda phi, a, s: phi + a * s, phi, alphas, displacement), a


def multistep(phi, a, grad, base, direction, rho, k, average=False):
    """k steps up, one step of the base optimizer; SAM and ASAM at k = 1."""
    if k == 0:
        u, a = base.step(grad(phi, 0), a, phi)
        return tree_map(np.add, phi, u), a
    p = phi
    gradients = []
    for i in range(k):
        d = direction(grad(p, i), p)
        p = tree_map(lambda p, d: p + rho * d, p, d)
        gradients.append(grad(p, i))
    g = gradients[-1]
    if average:
        g = tree_map(lambda *g: sum(g) / k, *gradients)
    u, a = base.step(g, a, phi)
    return tree_map(np.add, phi, u), a


def one_step(phi, a, grad, base, direction, rho, k, combine):
    """k steps up, one step of the base optimizer along what `combine` makes of it."""
    p = phi
    gradients = []
    for i in range(k):
        d = direction(grad(p, i), p)
        p = tree_map(lambda p, d: p + rho * d, p, d)
        gradients.append(grad(p, i))
    u, a = base.step(combine(grad(phi, 0), gradients), a, phi)
    return tree_map(np.add, phi, u), a


def lookahead(step, k, alpha=None, outer=None):
    """Wraps a step of any optimizer; returns (fast, slow) after each of its steps.

    The slow weights move by α, or by `outer`, a base optimizer of theirs.
    """

    def run(phi, a, steps):
        fast = slow = phi
        state = outer and outer.init(phi)
        for t in range(1, steps + 1):
            fast, a = step(fast, a)
            if t % k == 0 and not outer:
                slow = tree_map(lambda s, f: s + alpha * (f - s), slow, fast)
            elif t % k == 0 and outer:
                u, state = outer.step(tree_map(np.subtract, slow, fast), state, slow)
                slow = tree_map(np.add, slow, u)
            if t % k == 0:
                fast = slow
            yield fast, slow

    return run


def _alphas(alpha, first, displacement):
    if alpha == "global":
        inner = sum(np.sum(first[n] * displacement[n]) for n in first)
        norms = max(norm(first), 1e-8) * max(norm(displacement), 1e-8)
        return tree_map(lambda _: (inner / norms + 1) / 2, first)
    if alpha == "per tensor":

        def one(u, s):
            norms = max(np.linalg.norm(u), 1e-8) * max(np.linalg.norm(s), 1e-8)
            return (np.sum(u * s) / norms + 1) / 2

        return tree_map(one, first, displacement)
    return tree_map(lambda _: alpha, first)


def grouped(phi, a, grads, base, direction, rho, k, alpha=1.0, uses="every"):
    """m-SAM and its kin: every group of examples climbs by itself, all descend as one.

    `grads` has the gradient of each group's own loss; `uses` is "every", for a step of
    the base optimizer with every gradient, or what makes of each group's gradients the
    one that it gives to the mean.
    """
    points = [phi for _ in grads]
    gradients = [[] for _ in grads]
    f = phi
    first = None
    for i in range(k):
        for n, grad in enumerate(grads):
            d = direction(grad(points[n]), points[n])
            points[n] = tree_map(lambda p, d: p + rho * d, points[n], d)
            gradients[n].append(grad(points[n]))
        if uses == "every":
            g = tree_map(lambda *g: sum(g) / len(grads), *(of[-1] for of in gradients))
            u, a = base.step(g, a, f)
            f = tree_map(np.add, f, u)
            first = f if i == 0 else first
    if uses != "every":
        own = [uses(grad(phi), of) for grad, of in zip(grads, gradients, strict=True)]
        u, a = base.step(tree_map(lambda *g: sum(g) / len(grads), *own), a, phi)
        f = first = tree_map(np.add, phi, u)
    displacement = tree_map(np.subtract, f, phi)
    alphas = _alphas(alpha, tree_map(np.subtract, first, phi), displacement)
    return tree_map(lambda phi, a, s: phi + a * s, phi, alphas, displacement), a


def grouped_steps(phi, grads, base, member, rho, steps):
    """The parameters after each step of m-SAM.

    `member` has what `grouped` takes as direction, k, α and uses. A direction that
    follows the clean gradients follows their mean, one for all groups.
    """
    direction, *arguments = member
    a = base.init(phi)
    for _ in range(steps):
        clean = [grad(phi) for grad in grads]
        phi, a = grouped(phi, a, grads, base, direction, rho, *arguments)
        if isinstance(direction, Friendly):
            direction.follow(tree_map(lambda *g: sum(g) / len(grads), *clean))
        yield phi
