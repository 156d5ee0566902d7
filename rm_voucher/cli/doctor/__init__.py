"""``rm-voucher doctor``: what keeps an installation from working, and the remedy.

`command` runs the checks of `settings`, `way`, `account` and `stores` in their order; `patient` has
what they share. Nothing is changed by any of them.
"""
