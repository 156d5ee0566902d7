"""``python -m rm_voucher``: the command ``rm-voucher``."""

from rm_voucher.cli import main

main()
