"""ecamp: does this medical vision-language pre-training help, and can the number be trusted?

Importing this package imports nothing heavy: no torch, no numpy.
"""

import logging
from typing import TYPE_CHECKING

# Version of results: cells of another version are not reused. Raise it when a change of code changes
# results for the same recipe. Packages below that state their own (`ecamp.datasets`, `ecamp.encoders`,
# `ecamp.pretext`, `ecamp.published`, `ecamp.distill`) are raised apart: decoded images, weights and
# distilled reports then outlive a change that concerns scores alone.
__results_version__ = 4

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants to read, adds another

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Read `__version__` when it is asked for; it is written down in pyproject.toml alone."""
        if name == "__version__":
            from importlib.metadata import version

            return version("ecamp")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
