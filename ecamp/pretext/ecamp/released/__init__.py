"""The published ECAMP code's arithmetic, defects included (`ecamp?fidelity=released`).

Source of the facts: repository ToniChopp/ECAMP, commit d02d16d; METHOD's differences between it and
the paper are listed where each is reproduced.
"""
