"""Style of all plots: a palette that is safe for color-blind readers, and literal text."""

from typing import Any

from cycler import cycler

# Okabe & Ito (2008), without the colors that are too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Matplotlib does not export the type of the keys.
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.titlesize": "medium",
    "legend.frameon": False,
    # A dollar sign in a label does not start a formula.
    "text.parse_math": False,
}
