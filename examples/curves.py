"""A picture of training: the loss of several runs at each step, as an SVG without any library."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN = 640, 400, 56
STYLES = (("#e8a33d", 5), ("#1f3b73", 1.5))
"""Colour and width of the first and the second curve, which lies on top of it."""


def loss_curves(title: str, losses: Mapping[str, Sequence[float]]) -> str:
    """Two runs' losses, by name, as the text of an SVG file."""
    steps = max(len(run) for run in losses.values())
    highest = max(max(run) for run in losses.values())
    lowest = min(min(run) for run in losses.values())
    spread = highest - lowest or 1.0

    def point(step: int, loss: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / max(1, steps - 1)
        return x, MARGIN + (HEIGHT - 2 * MARGIN) * (highest - loss) / spread

    left, top = point(0, highest)
    right, bottom = point(steps - 1, lowest) if steps > 1 else (WIDTH - MARGIN, HEIGHT - MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 28, title, "middle"),
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="black"/>',
        _text(WIDTH / 2, HEIGHT - 14, "step", "middle"),
        _text(left, top - 8, "loss (nats per character)", "start"),
    ]
    for k in range(5):
        loss = lowest + spread * k / 4
        parts.append(_text(left - 6, point(0, loss)[1] + 4, f"{loss:.2f}", "end"))
        step = (steps - 1) * k // 4
        parts.append(_text(point(step, lowest)[0], bottom + 18, str(step + 1), "middle"))
    for k, ((name, run), (colour, width)) in enumerate(zip(losses.items(), STYLES, strict=True)):
        path = "M" + "L".join("{:.1f} {:.1f}".format(*point(step, loss)) for step, loss in enumerate(run))
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        y = MARGIN + 20 * (k + 1)
        parts.append(f'<path d="M{right - 130} {y}h28" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(_text(right - 94, y + 4, name, "start"))
    return "\n".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
