"""How every plot looks: colours that colour-blind readers tell apart, and text as it is written."""

from typing import Any

from cycler import cycler

# Okabe & Ito (2008), without those too pale for a white page.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Matplotlib's own type of the keys has no name.
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.titlesize": "medium",
    "legend.frameon": False,
    # A label is text, and a dollar in it no formula.
    "text.parse_math": False,
}
