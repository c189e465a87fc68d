"""Draws one step of Lookbehind-SAM: `python docs/climb.py`, from the repository's root.

It writes docs/pictures/climb.gif, which docs/how-it-works.md shows.
"""

from pathlib import Path

from matplotlib.animation import FuncAnimation
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure
import numpy as np

CURVATURE = np.array([1.0, 4.0])
PHI, RHO, K, ALPHA, RATE = np.array([1.5, 0.42]), 0.4, 3, 1 / 3, 0.08
COLORS = {"perturbed": "#D55E00", "fast": "#0072B2", "slow": "#009E73"}
PATH = Path(__file__).parent / "pictures" / "climb.gif"


def walk():
    """The points of the climb, and the fast weights after each ascent."""
    climb, fast, g = [PHI], [PHI], CURVATURE * PHI
    for _ in range(K):
        climb.append(climb[-1] + RHO * g / np.linalg.norm(g))
        g = CURVATURE * climb[-1]
        fast.append(fast[-1] - RATE * g)
    return np.array(climb), np.array(fast)


def scenes():
    """Yields for each frame: ascents and descents so far, if φ has moved, a caption."""
    yield 0, 0, False, "Start at the slow weights φ; p = f = φ"
    for i in range(1, K + 1):
        yield i, i - 1, False, f"Ascent {i}: p moves ρ uphill"
        yield i, i, False, f"Descent {i}: f follows the gradient at p"
    yield K, K, True, "φ moves towards f by α = 1/k"


def draw(axes, scene):
    """One frame."""
    ascents, descents, moved, caption = scene
    climb, fast = walk()
    x, y = np.meshgrid(np.linspace(-0.3, 2.5, 200), np.linspace(-0.9, 1.7, 160))
    heights = (CURVATURE[0] * x**2 + CURVATURE[1] * y**2) / 2
    axes.clear()
    axes.contour(
        x, y, heights, np.geomspace(0.05, 8, 14), colors="#BBBBBB", linewidths=1
    )
    axes.plot(0, 0, "+", color="black", markersize=10)
    axes.plot(*climb[: ascents + 1].T, ".-", color=COLORS["perturbed"], markersize=12)
    axes.plot(*fast[: descents + 1].T, ".-", color=COLORS["fast"], markersize=12)
    slow = PHI + ALPHA * (fast[-1] - PHI) if moved else PHI
    if moved:
        axes.plot(*np.array([PHI, slow]).T, color=COLORS["slow"], linewidth=4)
    axes.plot(*slow, "o", color=COLORS["slow"], markersize=11)
    for name, at, shift in [
        ("perturbed", climb[ascents], (6, 6)),
        ("fast", fast[descents], (-6, -16)),
        ("slow", slow, (8, -14)),
    ]:
        label = {"perturbed": "p", "fast": "f", "slow": "φ"}[name]
        if label == "φ" or (at != PHI).any():
            axes.annotate(
                label,
                at,
                shift,
                textcoords="offset points",
                color=COLORS[name],
                size=14,
            )
    axes.set(title=caption, xticks=[], yticks=[], aspect="equal")


def main():
    """Writes the picture."""
    figure = Figure(figsize=(5.6, 4.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    frames = list(scenes())
    frames += [frames[-1]]  # longer at the end
    animation = FuncAnimation(figure, lambda scene: draw(axes, scene), frames=frames)
    animation.save(PATH, writer=PillowWriter(fps=0.8))


if __name__ == "__main__":
    main()
