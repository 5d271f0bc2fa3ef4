"""ecamp: does this medical vision-language pre-training help, and can the number be trusted?

Importing this package imports nothing heavy: no torch, no numpy.
"""

__version__ = "0.1.0"
